# One image, three commands: estserver, est-operator and the client est. A release pins BASE by its digest.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# The build backend stays in a venv that is left behind; the one that is kept has no pip.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/est-issuer
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
# Wheels only: nothing is compiled, and no package's own build script runs. pip compiles the bytecode, for which a read-only
# root has no room later.
RUN /opt/build/bin/pip install --quiet --only-binary :all: --require-hashes -r requirements-build.lock \
 && /opt/build/bin/pip --python /opt/est-issuer/bin/python install --quiet --only-binary :all: --require-hashes -r requirements.lock
COPY . .
RUN /opt/build/bin/pip --python /opt/build/bin/python wheel --quiet --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
 && /opt/build/bin/pip --python /opt/est-issuer/bin/python install --quiet --no-deps --no-index /tmp/wheel/*.whl

FROM ${BASE}
COPY --from=build /opt/est-issuer /opt/est-issuer
ENV PATH=/opt/est-issuer/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
CMD ["estserver", "--help"]
