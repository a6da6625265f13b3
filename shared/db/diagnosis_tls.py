"""Why TLS fails. libpq has one text for most bad certificates; Python's ssl, which the probe uses, tells the reason."""

from shared.db.diagnosis_row import Row

_OWN_ROOT = (
    "Download the provider's root certificate, ship it in a folder that is deployed, and add sslrootcert=PATH.",
)
_WITHOUT_CHECK = "sslmode=require encrypts without checking who answers: only for a network that you trust."

ROWS = (
    Row(
        "ssl_required",
        "The server {host} takes the user {user} only over TLS, and the connection was not encrypted.",
        (
            "Add sslmode=require to the connection string: postgresql://USER:PASSWORD@HOST:5432/DATABASE?sslmode=require",
            "Remove DATABASE_DISABLE_SSL if it is set.",
        ),
        says="SSL required|SSL connection is required|requires TLS connections|allowed only with SSL"
        "|connection is insecure|takes only TLS",
    ),
    Row(
        "ssl_not_supported",
        "The server {host}:{port} has no TLS, and the connection string asks for it.",
        (
            "Compare host and port with the provider's connection string: providers' servers have TLS.",
            "On the same machine use 127.0.0.1 or localhost, which need none.",
            "On your own server: ssl = on, with a certificate. On a network that you trust: DATABASE_DISABLE_SSL=true.",
        ),
        says="server does not support SSL|Server refuses SSL",
    ),
    Row(
        "certificate_expired",
        "The certificate of {host} has expired, or this machine's clock is wrong.",
        ("Renew the server's certificate, and reload the server.", "Compare this machine's date.", _WITHOUT_CHECK),
        says="certificate has expired|certificate is not yet valid",
    ),
    Row(
        "certificate_wrong_host",
        "The certificate that the server shows is not for {host}.",
        (
            "Use the host name that the certificate is for, as in the provider's connection string; no address.",
            "sslmode=verify-ca checks the authority, and not the name.",
        ),
        says="does not match host name|Hostname mismatch|IP address mismatch|certificate is not valid for",
    ),
    Row(
        "certificate_self_signed",
        "{host} shows a certificate that no trusted authority signed: a self-signed one, or the provider has an "
        "authority of its own.",
        (*_OWN_ROOT, _WITHOUT_CHECK),
        says="self-signed certificate|self signed certificate",
    ),
    Row(
        "certificate_unknown_authority",
        "{host} shows a certificate of an authority that is not trusted here.",
        (*_OWN_ROOT, "If sslrootcert is set, it names another authority's file: compare.", _WITHOUT_CHECK),
        says="unable to get (local )?issuer certificate|unknown ca\\b",
    ),
    Row(
        "root_certificates_missing",
        "The root certificates to check {host} with cannot be read: {file}.",
        (
            "Correct sslrootcert in the URL: a path in the folder that is deployed.",
            "sslrootcert=system takes this machine's own.",
        ),
        says='root certificate file "(?P<file>[^"\n]+)"|file of root certificates (?P<file_>.+?) cannot be read',
    ),
    Row(
        "certificate_verify_failed",
        "The certificate of {host} could not be verified: unknown authority, expired, or another host's.",
        (*_OWN_ROOT, "db with the same DATABASE_URL asks the server, and tells which of these it is.", _WITHOUT_CHECK),
        says="certificate verify failed|CERTIFICATE_VERIFY_FAILED",
        is_vague=True,
    ),
    Row(
        "weak_sslmode",
        "The connection string combines TLS settings that exclude each other: sslmode is too weak for the others.",
        ("With sslrootcert=system write sslmode=verify-full; with sslnegotiation=direct at least sslmode=require.",),
        says="weak sslmode",
    ),
    Row(
        "invalid_sslmode",
        "The connection string has a wrong sslmode: {mode}.",
        ("Write sslmode=require, or sslmode=verify-full to check the server's certificate too.",),
        says='invalid sslmode value: "(?P<mode>[^"\n]+)"',
    ),
    Row(
        "client_without_ssl",
        "The client tool on this machine was built without TLS.",
        ("Install the system's PostgreSQL client: apt install postgresql-client, or brew install libpq.",),
        says="SSL support is not compiled in",
    ),
    Row(
        "channel_binding_impossible",
        "The connection string demands channel binding, which {host} does not offer: a pooler without it, or no TLS.",
        (
            "Remove channel_binding=require from the URL.",
            "Or use the server's own address with sslmode=require, not the pooler's.",
        ),
        says="channel binding (is )?required",
    ),
    Row(
        "direct_tls_not_supported",
        "{host}:{port} does not take TLS without asking first (sslnegotiation=direct): older than PostgreSQL 17, "
        "a pooler, or TLS is off.",
        ("Remove sslnegotiation=direct from the URL.",),
        says=r"wrong version number|(?s:port \d+ failed: SSL error: unexpected eof.*\(sslnegotiation=direct\))"
        r"|connects without it \(sslnegotiation=direct\)",
    ),
)
