"""An import-linter contract: modules that may stand side by side but may not know each other.

import-linter's own `independence` wants every module to exist and to be listed. Here a member may be missing
(it is not built yet), and each folder below one of `folders_of` is a member by being there, so that a new
adapter is held to the rule without an edit. A folder is a package with something in it; the plain modules
beside it (the registry, the loader) are shared and may import members.

Only direct imports count: the way through the registry is how adapters are meant to be reached.
"""

from itertools import permutations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class Strangers(Contract):
    """No member imports another member, nor anything inside it."""

    type_name = "strangers"

    folders_of = fields.ListField(subfield=fields.StringField(), required=False, default=[])
    modules = fields.ListField(subfield=fields.StringField(), required=False, default=[])

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        found: list[tuple[str, str]] = []
        for group in self._groups(graph):
            for importer, imported in permutations(group, 2):
                for module in sorted({importer} | graph.find_descendants(importer)):
                    found.extend(
                        (module, target)
                        for target in sorted(graph.find_modules_directly_imported_by(module))
                        if target == imported or target.startswith(imported + ".")
                    )
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported in check.metadata["found"]:
            output.print_error(f"- {importer} imports {imported}")

    def _groups(self, graph: ImportGraph) -> list[list[str]]:
        listed = [module for module in _listed(self.modules) if module in graph.modules]
        folders = [
            sorted(child for child in graph.find_children(parent) if graph.find_children(child))
            for parent in _listed(self.folders_of)
            if parent in graph.modules
        ]
        return [listed, *folders]


def _listed(field: object) -> list[str]:
    """import-linter replaces the field by its value when the contract is made; its type does not say so."""
    assert isinstance(field, list)
    return field
