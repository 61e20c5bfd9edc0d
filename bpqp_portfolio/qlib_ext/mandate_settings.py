"""The ``mandate:`` block of a workflow: read, checked, refused where no backtest could hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import from_mapping
from ..data.index_weights import PROXIES, index_weights
from ..data.market import Market
from ..data.provider import Provider
from ..data.sectors import read_sectors
from ..errors import ConfigError
from ..portfolio.mandate import Mandate
from ..risk.clusters import ClusterConfig

NO_LONG_ONLY = (
    "mandate: it allows negative weights or a sum above 1, which Qlib's backtest would drop "
    "without a word, since its accounts hold no short position and lend no money. Add "
    "`long_only: true` or a lower bound of 0 and a budget of at most 1, or use the mandate from "
    "Python, where the layer and your own simulation take any sign."
)


@dataclass(frozen=True)
class MandateSettings:
    """The ``mandate:`` block of a dataset: what is constrained, and the tables it needs.

    ``sectors`` a CSV file (see :func:`~bpqp_portfolio.data.sectors.read_sectors`), or a mapping of
    :class:`ClusterConfig` for groups found in past returns; ``index_weights`` as for
    :func:`~bpqp_portfolio.data.index_weights.index_weights`; ``pin_limits`` keeps names that closed
    at a price limit from trading against it the next day. ``rules`` is everything else in the
    block, for :meth:`Mandate.from_config`.
    """

    rules: Mapping[str, Any]
    sectors: str | ClusterConfig
    index_weights: str = "equal"
    pin_limits: bool = True

    @classmethod
    def from_config(cls, block: Mapping[str, Any]) -> MandateSettings:
        """Settings from the block of a workflow.

        Raises
        ------
        ConfigError
            An unknown key or value, or a mandate with negative weights or leverage.
        """
        if not isinstance(block, Mapping):
            raise ConfigError(f"mandate: expected a mapping, got {block!r}.")
        try:
            json.dumps(block)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"mandate: {error}; write numbers, words, lists and mappings alone, since the run "
                "keeps them as JSON for the days after it."
            ) from error
        own = {k: block[k] for k in ("sectors", "index_weights", "pin_limits") if k in block}
        sectors = own.pop("sectors", None)
        if not isinstance(sectors, str):
            sectors = from_mapping(ClusterConfig, sectors, "mandate.sectors")
        if not isinstance(own.get("index_weights", ""), str):
            raise ConfigError(
                f"mandate.index_weights: expected equal, traded_value or a CSV file, "
                f"got {own['index_weights']!r}."
            )
        if not isinstance(own.get("pin_limits", True), bool):
            raise ConfigError(
                f"mandate.pin_limits: expected true or false, got {own['pin_limits']!r}."
            )
        rules = {
            k: v for k, v in block.items() if k not in ("sectors", "index_weights", "pin_limits")
        }
        settings = cls(rules=rules, sectors=sectors, **own)
        if not settings.build().long_only:
            raise ConfigError(NO_LONG_ONLY)
        return settings

    def to_config(self) -> dict[str, Any]:
        """The block again, for :meth:`from_config` in any folder: paths of tables are absolute."""
        sectors, index = self.sectors, self.index_weights
        if isinstance(sectors, ClusterConfig):
            tables: dict[str, Any] = {"sectors": asdict(sectors)}
        else:
            tables = {"sectors": _absolute(sectors)}
        tables["index_weights"] = index if index in PROXIES else _absolute(index)
        return {**self.rules, **tables, "pin_limits": self.pin_limits}

    def build(self) -> Mandate:
        """The mandate itself."""
        return Mandate.from_config(self.rules)

    def check_tables(self, market: Market, provider: Provider) -> None:
        """Read the tables once, so that what is wrong with them is said before any long work."""
        index_weights(self.index_weights, market, provider)
        if isinstance(self.sectors, str):
            read_sectors(self.sectors, market.dates, market.names)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
