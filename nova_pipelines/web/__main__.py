"""`python -m nova_pipelines.web --workspace FILE --host HOST --port PORT`: how `nova serve web` starts it."""

from nova_pipelines.web.server import main

main()
