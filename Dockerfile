# One image for every process of NOVA. No secret is built in; the health checks stand in docker-compose.yml.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt ./
# the packages first, in a layer of their own: a change of NOVA's code does not install them again
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; o = p['optional-dependencies']; print(*p['dependencies'], *o['server'], *o['e2b'], sep='\n')" > requirements.txt \
 && /opt/venv/bin/pip install --only-binary :all: -c constraints.txt -r requirements.txt
COPY README.md LICENSE ./
COPY nova_pipelines ./nova_pipelines
RUN /opt/venv/bin/pip install -c constraints.txt ".[server,e2b]"

FROM python:3.11-slim
RUN groupadd --gid 10001 nova \
 && useradd --uid 10001 --gid nova --no-create-home --home-dir /var/lib/nova --shell /usr/sbin/nologin nova \
 && install --directory --owner nova --group nova --mode 0700 /var/lib/nova
COPY --from=build /opt/venv /opt/venv
WORKDIR /opt/nova
COPY alembic.ini ./
COPY workflows ./workflows
COPY deploy ./deploy
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    NOVA_HOME=/var/lib/nova \
    DAGSTER_CONFIGURATION=/opt/nova/deploy/dagster.yaml \
    DAGSTER_HOME=/tmp/dagster \
    DAGSTER_LOCAL_DIR=/var/lib/nova/dagster
USER 10001:10001
VOLUME /var/lib/nova
ENTRYPOINT ["/opt/nova/deploy/entrypoint.sh"]
CMD ["nova", "--help"]
