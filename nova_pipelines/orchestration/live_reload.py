"""A code server that loads the stored workflows again where it is, instead of in a new process.

Dagster's `code-server start` starts another interpreter for each reload: three CPU-s and the memory of a second server
until the first one's runs have ended. What changes here are rows, not code, so `dagster api grpc` is served without
that proxy, and its `ReloadCode` makes the repository anew and puts it in the old one's place, as Dagster's own
`ReloadCodeWithState` does. A run keeps its pin in its plan, and a call that is under way keeps the repository it has.
A new id of the server tells daemon and web service to look again. What cannot be loaded leaves the old one in force.

This module alone knows the parts of Dagster's server that this needs (`DagsterApiServer`, 1.13.27).
"""

import sys
import uuid
from typing import Any

from nova_pipelines.orchestration.warm_workers import in_code_server


def reload_in_place(module: str) -> bool:
    """Makes this code server able to reload `module`, that of the definitions; False where this is none."""
    if not in_code_server():
        return False
    from dagster._grpc.server import DagsterApiServer

    def reload_code(server: Any, _request: Any, _context: Any) -> Any:
        return _reload(server, module)

    DagsterApiServer.ReloadCode = reload_code  # pyright: ignore[reportAttributeAccessIssue]
    return True


def _reload(server: Any, module: str) -> Any:
    from dagster._grpc.__generated__ import dagster_api_pb2
    from dagster._grpc.server import LoadedRepositories

    with server._reload_lock:
        old = sys.modules.pop(module, None)
        try:
            loaded = LoadedRepositories(
                server._loadable_target_origin,
                entry_point=server._entry_point,
                container_image=server._container_image,
                container_context=server._container_context,
                defs_state_info=server._defs_state_info,
            )
        except Exception:
            if old is not None:
                sys.modules[module] = old
            server._logger.exception("the workflows could not be loaded again: the old ones stay")
        else:
            server._loaded_repositories, server._serializable_load_error = loaded, None
            server._server_id = str(uuid.uuid4())
    return dagster_api_pb2.ReloadCodeReply()
