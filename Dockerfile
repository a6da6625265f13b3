# The app as a long-lived server, and its migrations: docs/PRODUCTION.md says how to run both.

FROM python:3.13.16-slim-trixie AS build

COPY requirements.txt requirements-dev.txt /tmp/
# The server is not in the functions' list; here it has the versions that development uses. Wheels only: no compiler.
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --only-binary=:all: \
        --requirement /tmp/requirements.txt --constraint /tmp/requirements-dev.txt uvicorn httptools uvloop

WORKDIR /app
COPY app.py ./
COPY functions functions
COPY shared shared
COPY migrations migrations
# By hash and never checked again, since a copy may change the files' dates.
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/venv /app


FROM python:3.13.16-slim-trixie

# The image comes without the standard library's bytecode, and the user below may not write it.
RUN python -m compileall -q -x '/(ensurepip|idlelib|pydoc_data|site-packages|tkinter|turtledemo)/' /usr/local/lib/python3.13

# uvicorn's options as variables, so that whoever runs the image can change each. From which addresses it believes
# X-Forwarded-For and -Proto is not set here: FORWARDED_ALLOW_IPS, by default its own machine only. Requests get 20 s to
# finish after SIGTERM, and closing the connections up to 6 s: together less than the 30 s after which Kubernetes kills.
# The app logs each request itself, and what it cost.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    APP_ENV=production \
    UVICORN_HOST=0.0.0.0 \
    UVICORN_PORT=3000 \
    UVICORN_ACCESS_LOG=false \
    UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN=20

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app

# A number, so that Kubernetes can see that it is not root. It owns nothing here.
USER 10001:10001

EXPOSE 3000

# Not urllib, which would ask a proxy of the environment.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ['UVICORN_PORT']), timeout=4); c.request('GET', '/api/health'); raise SystemExit(c.getresponse().status != 200)"]

CMD ["uvicorn", "app:app"]
