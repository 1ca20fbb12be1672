-- The image's own POSTGRES_DB makes `dagster`; MLflow keeps its tables apart.
CREATE DATABASE mlflow OWNER xmc;
