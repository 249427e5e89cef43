"""The links of templates that belong to a version of plain Cedar policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import cedarpy

from cedarbox.errors import BundleError
from cedarbox.review.plain import links_of
from cedarbox.review.subject import Subject

__all__ = ["BESIDE", "checked"]

BESIDE: Final = "links.json"
"""The file beside the policies that has their links, where none is named."""


def checked(path: Path, data: bytes, subject: Subject) -> tuple[Mapping[str, Any], ...]:
    """Return template links in Cedar's JSON form that belong to policies and fit their schema.

    Args:
        path: What messages call their file.
        data: Its content, in one of the forms that :func:`cedarbox.review.plain.load_cedar` takes.
        subject: What they are links of.

    Raises:
        BundleError: They have another form, are of no template that there is, or do not fit the schema.
    """
    # The prover is loaded where something is linked.
    from cedarbox.review.prove.links import filled

    found = links_of(path, data)
    hint = "a template goes by its @id, or by FILE#NUMBER without one; each of its slots needs a value"
    templates = {policy.id for policy in subject.policies if policy.template}
    for link in found:
        if link["templateId"] not in templates:
            message = f"link {link['newId']!r} is of {link['templateId']!r}, which is no template"
            raise BundleError(message, path=path, hint=hint)
    try:
        policies = filled({policy.id: policy.est for policy in subject.policies}, found)
    except ValueError as error:
        raise BundleError(str(error), path=path, hint=hint) from None
    names = {link["newId"] for link in found}
    linked = {name: est for name, est in policies.items() if name in names}
    try:
        text = cedarpy.policies_from_json_str(
            json.dumps({"staticPolicies": linked, "templates": {}, "templateLinks": []})
        )
    except ValueError as error:
        raise BundleError(f"not what Cedar links: {error}", path=path, hint=hint) from None
    told = cedarpy.validate_policies(text, subject.schema)
    if not told.validation_passed:
        why = " ".join(str(told.errors[0].error).split()) if told.errors else "Cedar does not say why"
        raise BundleError(f"does not fit the schema: {why}", path=path)
    return found
