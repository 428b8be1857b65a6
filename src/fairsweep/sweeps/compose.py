"""Hydra's loader for many runs: what their configurations have in common is composed once."""

import pickle
from collections.abc import Iterable
from contextlib import suppress

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict

from fairsweep.config import ConfigError

# No run reads these, and Hydra copies them four times for each, which takes longer than the rest of it.
UNNEEDED = ("hydra.help", "hydra.hydra_help", "hydra.sweeper", "hydra.runtime.config_sources")


class Composer(ConfigLoaderImpl):
    """Composes each combination of group choices once, and applies plain values to copies.

    Hydra composes every run from its files, in 80 ms; a copy with its values takes 2.
    """

    def __init__(self, search_path: ConfigSearchPath) -> None:
        super().__init__(search_path)
        # As pickles: to load one takes a sixth of the time of a deep copy.
        self.bases: dict[tuple[str, ...], dict[str, bytes]] = {}
        self.parsed: dict[str, Override] = {}
        self.unneeded: tuple[str, ...] = ()  # paths in `hydra` that no job reads

    def parse(self, overrides: list[str]) -> list[Override]:
        """Overrides as Hydra understands them; globs know the groups."""
        new = [text for text in overrides if text not in self.parsed]
        if new:
            parser = OverridesParser.create(config_loader=self)
            self.parsed.update(zip(new, parser.parse_overrides(new), strict=True))
        return [self.parsed[text] for text in overrides]

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of one job, as Hydra's own loader gives it."""
        cfg = self.compose(master_config, sweep_overrides, "whole")
        with open_dict(cfg):
            cfg.hydra.overrides.task = list(sweep_overrides)
            names = cfg.hydra.job.config.override_dirname
            cfg.hydra.job.override_dirname = get_overrides_dirname(
                overrides=self.parse(sweep_overrides),
                kv_sep=names.kv_sep,
                item_sep=names.item_sep,
                exclude_keys=names.exclude_keys,
            )
        OmegaConf.copy_cache(from_config=master_config, to_config=cfg)
        return cfg

    def run_config(self, master_config: DictConfig, overrides: list[str]) -> DictConfig:
        """The same without Hydra's own part, as the job gets it."""
        cfg = self.compose(master_config, overrides, "run")
        OmegaConf.copy_cache(from_config=master_config, to_config=cfg)
        return cfg

    def compose(self, master_config: DictConfig, texts: list[str], part: str) -> DictConfig:
        """A base of its own, with the plain values applied; `part` is whole, or run."""
        overrides = self.parse(texts)
        choices = [override for override in overrides if self.is_choice(override)]
        key = tuple(str(override.input_line) for override in choices)
        if key not in self.bases:
            base = super().load_sweep_config(master_config, list(key))
            if base.hydra.sweeper != master_config.hydra.sweeper:
                common = master_config.hydra.overrides.task
                own = " ".join(text for text in key if text not in common)
                raise ConfigError(
                    f"{own}: sets hydra.sweeper, which cannot differ between runs; give a command for each"
                )
            self.bases[key] = self.pickled(base)
        cfg: DictConfig = pickle.loads(self.bases[key][part])
        self._apply_overrides_to_config([o for o in overrides if o not in choices], cfg)
        return cfg

    def apply(self, overrides: Iterable[Override], cfg: DictConfig) -> None:
        """Apply plain values where the configuration has their keys; the others belong to swept choices."""
        for override in overrides:
            if not self.is_choice(override):
                with suppress(ConfigCompositionException):  # each job will apply it, and must have its key
                    self._apply_overrides_to_config([override], cfg)

    def pickled(self, base: DictConfig) -> dict[str, bytes]:
        """A configuration less what is unneeded in `hydra`: whole, and without `hydra`."""
        for path in self.unneeded:
            parent, _, name = path.rpartition(".")
            node = OmegaConf.select(base, parent)
            with flag_override(node, ["struct", "readonly"], False):
                del node[name]
        whole = pickle.dumps(base)
        with open_dict(base):
            del base["hydra"]
        return {"whole": whole, "run": pickle.dumps(base)}

    def is_choice(self, override: Override) -> bool:
        """Whether an override chooses in a config group, by Hydra's own rule."""
        if override.package is not None:
            return True
        is_group: bool = self.repository.group_exists(override.key_or_group)
        return is_group and not isinstance(override.value(), dict)
