"""A lake with roles, with pings in its stable table, and the settings of what runs scripts over them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from lake_testing.lake_of_roles import ROLE_KEYS, LakeOfRoles
from lake_testing.sample_pings import sample_pings
from local_stack.lake_environment import env_file_text, role_keys_text
from local_stack.secret_files import write_secret_file
from telemetry_lake.settings import Role, Settings, load_settings
from telemetry_lake.tables.catalog import load_lake_catalog

STABLE_PINGS: Final = "stable.pings"


@dataclass(frozen=True, slots=True)
class LakeOfScripts:
    """A lake, and the settings of a process that prepares and runs scripts, as it has them."""

    lake: LakeOfRoles
    settings: Settings
    env_file: Path


@pytest.fixture
def lake_of_scripts(lake_of_roles: LakeOfRoles, tmp_path: Path) -> LakeOfScripts:
    """Return the lake of roles with the sample pings in `stable.pings`."""
    table = load_lake_catalog(lake_of_roles.of(Role.JOBS)).load_table(STABLE_PINGS)
    if table.current_snapshot() is None:
        table.append(sample_pings())
    keys = {role: ROLE_KEYS[role] for role in (Role.ANALYST, Role.SCRIPT)}
    env_file = tmp_path / "scripts.env"
    variables = {**lake_of_roles.environment, "TELEMETRY_LAKE_ROLE_KEYS": role_keys_text(keys)}
    write_secret_file(env_file, env_file_text(variables))
    return LakeOfScripts(lake_of_roles, load_settings(env_file), env_file)
