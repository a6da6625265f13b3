"""Failures of TLS."""

from tests.servers.tls import Certificate
from tests.shared.db.provoke import LIBPQ, Attempt, Stage, provokes


def _verified(stage: Stage, attempt: Attempt, **params: str) -> None:
    params = {"sslmode": "verify-full", "sslrootcert": str(stage.certificates.ca), **params}
    attempt.connect(stage.url(**params))


@provokes("ssl_required")
def pooler_with_tls_only(stage: Stage, attempt: Attempt) -> None:
    good = stage.certificates.good
    pooler = stage.pooler(
        "tls",
        client_tls_sslmode="require",
        client_tls_cert_file=str(good.certificate),
        client_tls_key_file=str(good.key),
    )
    attempt.connect(stage.through(pooler, sslmode="disable"))


@provokes("ssl_not_supported")
def server_without_tls(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.at(stage.plain, sslmode="require"))


@provokes("root_certificates_missing", only=(*LIBPQ, "ours+pg8000"))
def no_root_file(stage: Stage, attempt: Attempt) -> None:
    _verified(stage, attempt, sslrootcert=str(stage.directory / "a missing root.pem"))


@provokes("certificate_unknown_authority", vaguely=("certificate_verify_failed",))
def wrong_authority(stage: Stage, attempt: Attempt) -> None:
    _verified(stage, attempt, sslrootcert=str(stage.certificates.other_authority))


def _showing(stage: Stage, attempt: Attempt, certificate: Certificate) -> None:
    attempt.keep(stage.showing(certificate))
    _verified(stage, attempt)


@provokes("certificate_expired", vaguely=("certificate_verify_failed",))
def expired(stage: Stage, attempt: Attempt) -> None:
    _showing(stage, attempt, stage.certificates.expired)


@provokes("certificate_wrong_host")
def wrong_host(stage: Stage, attempt: Attempt) -> None:
    _showing(stage, attempt, stage.certificates.wrong_host)


@provokes("certificate_self_signed", vaguely=("certificate_verify_failed",))
def self_signed(stage: Stage, attempt: Attempt) -> None:
    _showing(stage, attempt, stage.self_signed)


@provokes("weak_sslmode", only=LIBPQ)
def weak_mode(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.url(sslmode="prefer", sslnegotiation="direct"))


@provokes("invalid_sslmode", only=LIBPQ)
def invalid_mode(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.url(sslmode="verify_full"))


@provokes("channel_binding_impossible", only=LIBPQ)
def channel_binding_without_tls(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.at(stage.plain, sslmode="disable", channel_binding="require"))


@provokes("direct_tls_not_supported", only=LIBPQ)
def direct_tls_to_a_server_without(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.at(stage.plain, sslmode="require", sslnegotiation="direct"))


@provokes("direct_tls_not_supported", only=LIBPQ)
def direct_tls_to_an_old_pooler(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.through(stage.pooler("patient"), sslmode="require", sslnegotiation="direct"))
