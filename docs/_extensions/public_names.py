"""Sphinx extension: a type in a signature is named by the module that defines it; its page has the public name.

`preprocess.report.BuildReport` leads to `preprocess.BuildReport`, which the package hands out.
"""

from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PACKAGES = ("preprocess", "cache_store", "loaders")


def public_name(target: str) -> str | None:
    """`package.module.Name` -> `package.Name`, if the package hands it out from there; else None."""
    package, _, rest = target.partition(".")
    module, _, name = rest.partition(".")
    table = getattr(import_module(package), "_PUBLIC", {}) if package in PACKAGES else {}
    return f"{package}.{name}" if table.get(name) == module else None


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.Element | None:
    if node.get("refdomain") != "py":
        return None
    public = public_name(node["reftarget"])
    if public is None:
        return None
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, node["reftype"], public, node, text)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True}
