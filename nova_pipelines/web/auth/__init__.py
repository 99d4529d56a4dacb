"""Who asks, and what they may do: on every request and websocket, NOVA's own routes and Dagster's behind them.

`authentication` finds the principal, `middleware` puts it where routes find it and refuses what comes from elsewhere,
`dagster_guard` and `graphql_rules` stand before Dagster, `login` and `oidc` let people in.
"""
