"""NOVA's one port: the HTTP API, the pages for people, and the Dagster UI with its GraphQL behind them.

`app.py` puts the application together and `server.py` serves it; `dagster_ui.py` alone knows private parts of Dagster;
`access.py` says who may do what, and every route names its rule.
"""
