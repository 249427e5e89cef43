"""SHOWS: the page of the embedded collector, for browsers of the host it runs on."""

from cedarbox.collector.page.app import PageOptions, page

__all__ = ["PageOptions", "page"]
