"""${message}"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade(engine_name: str) -> None:
    {"nova": upgrade_nova, "facturas": upgrade_facturas}[engine_name]()


def downgrade(engine_name: str) -> None:
    {"nova": downgrade_nova, "facturas": downgrade_facturas}[engine_name]()
% for name in ("nova", "facturas"):


def upgrade_${name}() -> None:
    ${context.get(name + "_upgrades", "pass")}


def downgrade_${name}() -> None:
    ${context.get(name + "_downgrades", "pass")}
% endfor
