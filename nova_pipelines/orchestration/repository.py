"""All stored workflows as Dagster jobs, pinned to one revision of the catalog.

The code server reads the newest revision once for each load and hands its number to every run worker
(Dagster's reconstruction metadata). Versions are immutable and revisions are committed in order, so "as of
revision N" is the same everywhere for ever; a worker reads the one version it runs, not a thousand.
This module alone touches Dagster's internal load context.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import dagster as dg
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType
from dagster._core.definitions.metadata.metadata_value import CodeLocationReconstructionMetadataValue
from dagster._core.definitions.repository_definition import (
    SINGLETON_REPOSITORY_NAME,
    CachingRepositoryData,
    RepositoryData,
    RepositoryLoadData,
)
from sqlalchemy import select

from nova_pipelines.compiler.catalog import compile_version
from nova_pipelines.compiler.dagster_calls import STATE_KEY
from nova_pipelines.compiler.job import Compiled, build_job
from nova_pipelines.database.nova import WorkflowVersion
from nova_pipelines.database.session import Database
from nova_pipelines.database.workflows import catalog_revision, version_at, versions_at
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.domain.workflow import Definition
from nova_pipelines.orchestration.assets import with_mail
from nova_pipelines.orchestration.loaded import Loaded
from nova_pipelines.orchestration.mailbox_health import mail_assets
from nova_pipelines.orchestration.resources import log, run_policy, sandbox_pool, services_resource
from nova_pipelines.orchestration.schedules import schedule_for
from nova_pipelines.orchestration.sensors import build_sensors
from nova_pipelines.settings import Settings


def pinned_revision(nova: Database) -> int:
    """The catalog's revision of this load: what the run was launched with, else the newest."""
    load = DefinitionsLoadContext.get()
    if load.load_type is DefinitionsLoadType.RECONSTRUCTION and STATE_KEY in load.reconstruction_metadata:
        revision = int(load.reconstruction_metadata[STATE_KEY])
    else:
        with nova.read() as session:
            revision = catalog_revision(session)
    return revision


def nova_repository(settings: Settings, nova: Database, fixed: Sequence[Any]) -> dg.RepositoryDefinition:
    """The repository of this code location, named as Dagster names a single one.

    It carries its pin itself: Dagster's server imports the module once and then loads the repository in a
    fresh load context, in which what was left pending at the import is gone.
    """
    repository = NovaRepository(settings, nova, fixed)
    pin = CodeLocationReconstructionMetadataValue(str(repository.revision))
    return dg.RepositoryDefinition(
        SINGLETON_REPOSITORY_NAME,
        repository_data=repository,
        # the web service reads here which versions are live
        metadata={STATE_KEY: dg.MetadataValue.int(repository.revision)},
        repository_load_data=RepositoryLoadData(reconstruction_metadata={STATE_KEY: pin}),
    )


class NovaRepository(RepositoryData):
    """Jobs, schedules and sensors of the stored workflows, beside the fixed assets and checks.

    Jobs are built when asked for by name: a run worker builds one. A definition that no longer compiles is
    left out with an error in the code server's log; the others go on.
    """

    def __init__(self, settings: Settings, nova: Database, fixed: Sequence[Any]) -> None:
        self._settings, self._nova, self._fixed = settings, nova, fixed
        self.revision = pinned_revision(nova)
        self._jobs: dict[str, dg.JobDefinition] = {}

    @cached_property
    def _base(self) -> CachingRepositoryData:
        # the clients' mail is looked up here and not at the import: a run worker needs no assets
        fixed = with_mail(self._fixed, mail_assets(self._nova))
        return CachingRepositoryData.from_list(fixed, default_executor_def=dg.in_process_executor)

    @cached_property
    def loaded(self) -> dict[str, Loaded]:
        """Every workflow of this revision that compiles, by the name of its job."""
        with self._nova.read() as session:
            ids = versions_at(session, self.revision)
            versions = session.scalars(select(WorkflowVersion).where(WorkflowVersion.id.in_(ids.values()))).all()
            session.expunge_all()
        names = {version_id: name for name, version_id in ids.items()}
        found: dict[str, Loaded] = {}
        for version in sorted(versions, key=lambda version: names[version.id]):
            name = names[version.id]
            try:
                definition, compiled = _compile(version, name)
                self._jobs[name] = self._build(definition, compiled)
            except (NovaError, dg.DagsterError) as error:
                log.error("workflow %s (version %s) is left out: %s", name, version.number, error)
                continue
            found[name] = Loaded(definition, compiled)
        return found

    def _build(self, definition: Definition, compiled: Compiled) -> dg.JobDefinition:
        return build_job(
            compiled,
            services=services_resource,
            policy=run_policy(self._settings),
            pool=sandbox_pool(self._settings),
            description=definition.description,
        )

    def _version(self, name: str) -> WorkflowVersion | None:
        with self._nova.read() as session:
            version = version_at(session, name, self.revision)
            session.expunge_all()
            return version

    # jobs

    def get_all_jobs(self) -> Sequence[dg.JobDefinition]:
        return [*self._base.get_all_jobs(), *(self._jobs[name] for name in self.loaded)]

    def get_job_names(self) -> Sequence[str]:
        return [*self._base.get_job_names(), *self.loaded]

    def has_job(self, job_name: str) -> bool:
        return job_name in self._jobs or self._version(job_name) is not None or self._base.has_job(job_name)

    def get_job(self, job_name: str) -> dg.JobDefinition:
        if job_name not in self._jobs:
            version = self._version(job_name)
            if version is None:
                return self._base.get_job(job_name)
            self._jobs[job_name] = self._build(*_compile(version, job_name))
        return self._jobs[job_name]

    # schedules and sensors

    @cached_property
    def _schedules(self) -> dict[str, dg.ScheduleDefinition]:
        schedules = (schedule_for(name, loaded.definition) for name, loaded in self.loaded.items())
        return {schedule.name: schedule for schedule in schedules if schedule is not None}

    @cached_property
    def _sensors(self) -> dict[str, dg.SensorDefinition]:
        sensors = [*build_sensors(self.loaded, self._settings), *self._base.get_all_sensors()]
        return {sensor.name: sensor for sensor in sensors}

    def get_all_schedules(self) -> Sequence[dg.ScheduleDefinition]:
        return list(self._schedules.values())

    def get_schedule(self, schedule_name: str) -> dg.ScheduleDefinition:
        return self._schedules[schedule_name]

    def has_schedule(self, schedule_name: str) -> bool:
        return schedule_name in self._schedules

    def get_all_sensors(self) -> Sequence[dg.SensorDefinition]:
        return list(self._sensors.values())

    def get_sensor(self, sensor_name: str) -> dg.SensorDefinition:
        return self._sensors[sensor_name]

    def has_sensor(self, sensor_name: str) -> bool:
        return sensor_name in self._sensors

    # assets

    def get_top_level_resources(self) -> Mapping[str, dg.ResourceDefinition]:
        return {"services": services_resource}

    def get_env_vars_by_top_level_resource(self) -> Mapping[str, Any]:
        return {}

    def get_source_assets_by_key(self) -> Mapping[Any, Any]:
        return self._base.get_source_assets_by_key()

    def get_assets_defs_by_key(self) -> Mapping[Any, Any]:
        return self._base.get_assets_defs_by_key()

    def get_asset_checks_defs_by_key(self) -> Mapping[Any, Any]:
        return self._base.get_asset_checks_defs_by_key()

    def get_asset_job_nodes(self) -> Sequence[Any]:
        return self._base.get_asset_job_nodes()


def _compile(version: WorkflowVersion, name: str) -> tuple[Definition, Compiled]:
    return compile_version(
        version.definition,
        workflow_id=version.workflow_id,
        version_id=version.id,
        version=version.number,
        source=f"{name} version {version.number}",
    )
