"""Schema of `record.json`, version 1: the one definition that runners fill, the report checks and docs print.

Fractions lie in [0, 1], sizes are bytes, times are seconds; rounds, steps and clients count from 0. A key that is
not required may be absent or null. Unknown keys are kept and ignored, so that a later version can be read.
"""

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from typing_extensions import NotRequired, TypedDict  # noqa: UP035  (pydantic needs this one before Python 3.12)

VERSION = 1
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Row = list[Fraction | None]  # accuracies of the groups after a step; null where nobody looked


class Sizes(TypedDict):
    """Bytes of one direction."""

    payload_bytes: Annotated[Count, Field(description="elements of the arrays as they travel, constants included")]
    wire_bytes: Annotated[Count, Field(description="serialised Flower messages")]


class Scenario(TypedDict):
    """The grid that was dealt: steps x clients."""

    name: str
    sha256: Annotated[str, Field(description="hash of the index arrays")]
    file: NotRequired[Annotated[str, Field(description="the grid itself, beside the record")]]
    num_clients: NotRequired[Count]
    num_steps: NotRequired[Count]
    class_counts: NotRequired[Annotated[list[list[Count]], Field(description="[clients][classes] of all steps")]]
    groups: NotRequired[Annotated[list[str], Field(description="names of the columns of the accuracy matrix")]]
    first_steps: NotRequired[Annotated[list[int], Field(description="step at which each group is first seen")]]


class Accuracy(TypedDict):
    """Accuracy on the test set, which never chose anything."""

    last: Fraction
    mean_last5: Annotated[Fraction, Field(description="mean of the last five looks")]
    best: Fraction


class Failure(TypedDict):
    """A client that gave no usable reply."""

    client: Count
    reason: str


class Sent(TypedDict):
    """Summaries that a round's clients sent."""

    sha256: Annotated[str, Field(description="hash of all of them, in order of clients")]
    decoded_images: Count


class ClientAccuracy(TypedDict):
    """Accuracy of one client's model on its own share of the test set."""

    client: Count
    accuracy: Fraction
    examples: Count


class AtClients(TypedDict):
    """Accuracies at clients: their spread."""

    mean: Fraction
    std: float
    worst_tenth: Annotated[Fraction, Field(description="mean of the lowest tenth")]
    worst: Fraction
    accuracies: NotRequired[list[ClientAccuracy]]


class Round(TypedDict):
    """One federated round."""

    round: Count
    step: NotRequired[Count]
    accuracy: NotRequired[Annotated[Fraction | None, Field(description="null where nobody looked")]]
    clients: NotRequired[Annotated[list[Count], Field(description="who was asked")]]
    failed: NotRequired[list[Failure]]
    counted: NotRequired[Annotated[bool, Field(description="false: too few replies, the state is as before")]]
    reason: NotRequired[Annotated[str | None, Field(description="why it did not count")]]
    up: Sizes
    down: Sizes
    at_clients: NotRequired[AtClients]
    summaries: NotRequired[Sent]
    seconds: NotRequired[Seconds]


class Communication(TypedDict):
    """Totals of the ledger; the roll call is in none of them."""

    up: Sizes
    down: Sizes
    total_wire_bytes: Count
    by_kind: Annotated[dict[str, float], Field(description="payload bytes by content, and framing")]
    messages: NotRequired[Count]
    not_counted_wire_bytes: NotRequired[Annotated[Count, Field(description="the roll call")]]


class Averages(TypedDict):
    """Averages that weight a group by its test samples."""

    average_accuracy: float | None
    average_incremental_accuracy: float | None


class Continual(TypedDict):
    """Figures of a stream; null where one does not exist."""

    average_accuracy: NotRequired[float | None]
    average_incremental_accuracy: NotRequired[float | None]
    forgetting: NotRequired[float | None]
    backward_transfer: NotRequired[float | None]
    forward_transfer: NotRequired[float | None]
    forgetting_variants: NotRequired[dict[str, float | None]]
    weighting: NotRequired[str]
    by_samples: NotRequired[Averages]


class ClientFigures(TypedDict):
    """The global model's figures on what one client has seen."""

    client: Count
    average_accuracy: float | None
    average_incremental_accuracy: float | None
    forgetting: float | None
    backward_transfer: float | None


class Memory(TypedDict):
    """What is remembered after the last step."""

    bytes: NotRequired[Count]
    images: NotRequired[Annotated[Count, Field(description="decoded images")]]
    stored_images: NotRequired[Count]
    client_bytes: NotRequired[Annotated[Count, Field(description="of all clients' own memories")]]
    client_images: NotRequired[Count]


class Step(TypedDict):
    """One step of a continual learner."""

    step: Count
    accuracy: NotRequired[Fraction]
    bytes: NotRequired[Annotated[Count, Field(description="of the memory after the step")]]
    images: NotRequired[Count]
    stored_images: NotRequired[Count]
    seconds: NotRequired[Annotated[Seconds, Field(description="since the run began")]]


class Epochs(TypedDict):
    """Accuracies after each epoch, where evaluation.every_epoch asked for them."""

    accuracy: list[Fraction]
    best: Fraction
    last: Fraction


class Score(TypedDict):
    """Accuracy of several networks trained on one set."""

    mean: Fraction
    std: NotRequired[float | None]
    nets: NotRequired[Count]
    values: NotRequired[list[Fraction]]


class Scored(TypedDict):
    """A set that networks were trained on."""

    accuracy: Score


class Control(Scored):
    """A control of equal bytes: selected real images."""

    images: NotRequired[Count]
    bytes: NotRequired[Count]
    cells: NotRequired[dict[str, dict[str, Score]]]


class Architecture(Scored):
    """A network that the distillation has not seen."""

    controls: NotRequired[dict[str, Scored]]


class Unrolled(Scored):
    """Training by the learned step sizes."""

    step_sizes: list[float]


class Distillation(TypedDict):
    """One summary of the training set, and what networks learn from it."""

    method: str
    ipc: Count
    bytes: Count
    payload_bytes: NotRequired[Annotated[dict[str, Count], Field(description="by content")]]
    decoded_images: NotRequired[Count]
    seconds: NotRequired[Seconds]
    sha256: NotRequired[str]
    loss: NotRequired[Annotated[list[list[float]], Field(description="[step, loss]")]]
    labels: NotRequired[str]
    training: NotRequired[dict[str, Any]]
    estimate: NotRequired[dict[str, float]]
    accuracy: Score
    cells: NotRequired[Annotated[dict[str, dict[str, Score]], Field(description="labels -> training -> score")]]
    controls: NotRequired[dict[str, Control]]
    unrolled: NotRequired[Unrolled]
    architectures: NotRequired[dict[str, Architecture]]
    full: NotRequired[Annotated[Score, Field(description="trained on all real images")]]
    ranking: NotRequired[Annotated[dict[str, float], Field(description="DD-Ranking's scores")]]


class Run(TypedDict):
    """Parts that every record has."""

    finished: bool
    command: NotRequired[Annotated[list[str] | str | None, Field(description="as typed; empty for a job from Python")]]
    config: Annotated[dict[str, Any], Field(description="what decides the result, less what the job does not use")]
    seed: int
    versions: dict[str, Any]
    seconds: Annotated[Seconds, Field(description="of all sessions of the run")]
    failure: NotRequired[str | None]
    plugins: NotRequired[Annotated[dict[str, Any], Field(description="packages of the user's own, and their versions")]]


class FederatedRecord(Run):
    """A run of `fedcl federated`."""

    verb: Literal["federated"]
    scenario: Scenario
    rounds: Annotated[list[Round], Field(min_length=1)]
    communication: Communication
    accuracy: Accuracy
    stopped: NotRequired[Annotated[dict[str, Any] | None, Field(description="the budget that ended it early")]]
    random_accuracy: NotRequired[Row]
    matrix: NotRequired[list[Row]]
    at_clients: NotRequired[
        Annotated[AtClients, Field(description="after the last round, where evaluate_clients asked")]
    ]
    continual: NotRequired[Continual]
    continual_clients: NotRequired[list[ClientFigures]]
    memory: NotRequired[Memory]


class ContinualRecord(Run):
    """A run of `fedcl continual`."""

    verb: Literal["continual"]
    scenario: Scenario
    matrix: Annotated[list[Row], Field(min_length=1)]
    steps: NotRequired[list[Step]]
    accuracy: Accuracy
    random_accuracy: NotRequired[Row]
    continual: NotRequired[Continual]
    memory: NotRequired[Memory]
    epochs: NotRequired[Epochs]


class DistillRecord(Run):
    """A run of `fedcl distill`."""

    verb: Literal["distill"]
    distillation: Distillation


VERBS = {"federated": FederatedRecord, "continual": ContinualRecord, "distill": DistillRecord}


@cache
def checker(verb: str) -> TypeAdapter:
    """Validator of the verb's finished records; asked with strict=True, so that no text passes for a number."""
    return TypeAdapter(VERBS[verb])


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a finished record of any verb."""
    kinds = Annotated[FederatedRecord | ContinualRecord | DistillRecord, Field(discriminator="verb")]
    schema = TypeAdapter(kinds).json_schema()
    about = {"title": "Record of a fedcl run", "description": f"record.json, version {VERSION}; see docs/record.md."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **about, **schema}
