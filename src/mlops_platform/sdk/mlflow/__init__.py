"""Experiments of MLflow as something to bring in, without MLflow: from its server, its folders, its database."""
