"""SHOWS: the page of the embedded collector, for browsers of the host it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cedarbox.collector.page.options import PageOptions

if TYPE_CHECKING:
    from cedarbox.collector.page.guarding import Guarding
    from cedarbox.collector.store import Store

__all__ = ["PageOptions", "page"]


def page(store: Store, options: PageOptions | None = None, *, any_host: bool = False) -> Guarding:
    """Return the pages, to be mounted at the root beside the endpoints of OTLP.

    Args:
        store: What was received; only read here.
        options: What else is shown.
        any_host: Accept any ``Host`` header; needed where the collector is reached from other hosts.

    Raises:
        BundleError: A bundle of the options cannot be used.
    """
    # Late, so that whoever only names the options does not load the templates.
    from cedarbox.collector.page.app import pages

    return pages(store, options or PageOptions(), any_host=any_host)
