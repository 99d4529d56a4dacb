"""`python -m nova_pipelines.web --workspace FILE --host HOST --port PORT`: how `nova serve web` starts it."""

import gc

# what is imported stays for ever: the collector would walk over it again and again, a seventh of the start's CPU time.
# It is on again before the first request (`server.settle_memory`)
gc.disable()

from nova_pipelines.web.server import main  # noqa: E402

main()
