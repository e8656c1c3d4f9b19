#!/usr/bin/env bash
# Run once by the postgres image, on an empty data folder. Two users, because whoever can send a job to Ray can read what Ray
# pods know: they shall reach the studies and not MLflow's users. A password travels through the environment only.
set -euo pipefail
psql --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv mlflow_password MLFLOW_PASSWORD
\getenv studies_password STUDIES_PASSWORD
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE ROLE studies LOGIN PASSWORD :'studies_password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
CREATE DATABASE studies OWNER studies;
REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC;
REVOKE CONNECT ON DATABASE mlflow_auth FROM PUBLIC;
REVOKE CONNECT ON DATABASE studies FROM PUBLIC;
SQL
