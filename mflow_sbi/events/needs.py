"""What observables and selections need of a tree: objects, branches, missing momentum."""

from collections.abc import Iterator
from dataclasses import replace

from mflow_sbi.errors import EventFileError, ExpressionError
from mflow_sbi.events.columns import EventTree
from mflow_sbi.events.expressions import Expression
from mflow_sbi.events.layouts import Layout, MissingBranches, ObjectBranches, ObjectUnion
from mflow_sbi.events.metadata import EventMetadata
from mflow_sbi.events.observables import WBF_OBSERVABLES, Observable
from mflow_sbi.events.particles import OBJECT_COLUMNS, object_columns
from mflow_sbi.events.request import ReadingRequest
from mflow_sbi.events.wording import listed, nearest

__all__ = ["Needs"]


class Needs:
    """Resolves observables and selections to the objects and branches they need.

    Attributes:
        observables: The columns of x.
        selections: Sentences that events must satisfy.
        objects: How many leading objects of each collection are needed, by symbol.
        further: What else is asked of objects, by symbol.
        branches: Branches of one number per event that are needed.
        missing: Where missing transverse momentum is, if it is needed.
        collections: Collections that are needed, with what their objects must satisfy.

    Raises:
        EventFileError: A branch that the tree does not have.
        ExpressionError: A sentence outside the language, or of objects that are not there.
    """

    def __init__(
        self,
        tree: EventTree,
        layout: Layout,
        request: ReadingRequest,
        record: EventMetadata | None,
    ) -> None:
        self.objects: dict[str, int] = {}
        self.further: dict[str, dict[str, None]] = {}
        self.branches: dict[str, None] = {}
        self.missing: MissingBranches | None = None
        self._tree, self._layout = tree, layout
        wanted = request.observables or (record and record.observables) or self._default()
        self.observables = tuple(map(self._resolved, wanted))
        self.selections = tuple(
            self.sentence(text).require_kind("truth", "selection") for text in request.selections
        )
        self.collections = tuple(self._selected(dict(request.objects)))

    @property
    def unions(self) -> tuple[ObjectUnion, ...]:
        """Collections taken together that are needed."""
        return tuple(union for union in self._layout.unions if union.symbol in self.objects)

    @property
    def all_branches(self) -> Iterator[str]:
        """Every branch that is needed."""
        for collection, _ in self.collections:
            yield from collection.needed
        yield from self.branches

    def sentence(self, text: str) -> Expression:
        """Return the parsed text, its needs noted."""
        symbols = self._layout.symbols
        try:
            expression = Expression(text)
        except ExpressionError:
            if not symbols and text.replace(".", "").replace("_", "").isalnum():
                self._tree.require(text)  # meant as a branch: name those that exist
            raise
        if not symbols:
            for name in expression.columns:
                self._tree.require(name)
            self._require_no_objects(text, expression)
        expression.require_names(symbols, self._tree.branches)
        if expression.planar:
            self._find_missing(text)
        self.branches.update(dict.fromkeys(expression.columns))
        for symbol, names in expression.further.items():
            self._require_further(text, symbol, names)
            self.further.setdefault(symbol, {}).update(dict.fromkeys(names))
        for symbol, n_needed in expression.objects.items():
            self.objects[symbol] = max(self.objects.get(symbol, 0), n_needed)
        return expression

    def _default(self) -> tuple[Observable, ...]:
        if self._layout.name == "declared":
            msg = f"{self._tree.path}: a declared layout has no default observables; name some."
            raise ExpressionError(msg)
        if self._layout.collections:
            return WBF_OBSERVABLES
        missing = [o.name for o in WBF_OBSERVABLES if o.name not in self._tree.branches]
        if missing:
            msg = (
                f"{self._tree.path}: tree {self._tree.name!r} is flat and has "
                f"{40 - len(missing)} of the 40 default observables (missing: "
                f"{listed(missing, most=3)}). Name the branches to read by observables=[...]; "
                f"branches: {listed(self._tree.branches, most=60)}."
            )
            raise EventFileError(msg)
        return WBF_OBSERVABLES

    def _resolved(self, observable: Observable) -> Observable:
        existing = self._tree.branches
        flat = not self._layout.collections
        if flat and observable.source not in existing and observable.name in existing:
            observable = replace(observable, expression="")
        if observable.source in existing:
            self.branches[observable.source] = None
            return observable
        sentence = self.sentence(observable.source).require_kind("number", "observable")
        if not (sentence.objects or sentence.columns or sentence.planar):
            msg = f"observable {observable.source!r} is the same for every event; leave it out."
            raise ExpressionError(msg)
        return observable

    def _require_further(self, text: str, symbol: str, names: list[str]) -> None:
        collection = next((c for c in self._layout.collections if c.symbol == symbol), None)
        if collection is None:
            msg = f"{text!r}: {symbol}[...] are of several collections; expected momenta only."
            raise ExpressionError(msg)
        known = [*OBJECT_COLUMNS, *object_columns(collection, self._tree)]
        for name in names:
            if name not in known:
                msg = (
                    f"{text!r}: {collection.name}s have no attribute {name!r} here; they have "
                    f"{listed(known, most=30)}.{nearest(name, known)}"
                )
                raise ExpressionError(msg)

    def _require_no_objects(self, text: str, expression: Expression) -> None:
        if expression.objects:
            msg = (
                f"{self._tree.path}: {text!r}: no objects {listed(expression.objects)} here; the "
                "layout is flat. Declare where they are by layout=... (in a run: `layout:`)."
            )
            raise ExpressionError(msg)

    def _find_missing(self, text: str) -> None:
        self.missing = self._layout.missing_in(self._tree.branches)
        if self.missing is None:
            places = [" and ".join(place.needed) for place in self._layout.missing]
            msg = (
                f"{self._tree.path}: {text!r} needs missing transverse momentum; expected the "
                f"branches {listed(places)}."
            )
            raise EventFileError(msg)

    def _selected(
        self, sentences: dict[str, str]
    ) -> Iterator[tuple[ObjectBranches, Expression | None]]:
        """Yield the collections needed, with the sentences that their objects must satisfy."""
        symbols = [collection.symbol for collection in self._layout.collections]
        for symbol in sentences:
            if symbol not in symbols:
                msg = (
                    f"objects: no objects {symbol!r} here; this layout provides {listed(symbols)}."
                )
                raise ExpressionError(msg)
        parts = {part for union in self.unions for part in union.parts}
        for collection in self._layout.collections:
            if collection.symbol in {*self.objects, *parts}:
                text = sentences.get(collection.symbol)
                yield collection, None if text is None else self._of_objects(collection, text)

    def _of_objects(self, collection: ObjectBranches, text: str) -> Expression:
        sentence = Expression(text)
        known = [*OBJECT_COLUMNS, *object_columns(collection, self._tree)]
        for name in sentence.columns:
            if name not in known:
                msg = (
                    f"selection of {collection.name}s, {text!r}: no column {name!r}; columns "
                    f"here: {listed(known, most=30)}.{nearest(name, known)}"
                )
                raise ExpressionError(msg)
        return sentence
