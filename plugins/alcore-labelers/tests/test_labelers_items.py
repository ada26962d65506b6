"""What a labeler is given of a request."""

from types import SimpleNamespace

import numpy as np
import torch
from alcore_labelers import read_items

from alcore import Request, TensorPool


class Pool(TensorPool):
    """Names its values, and counts how often it is asked."""

    asked = 0

    def shown(self, samples):
        self.asked += 1
        return {"T": np.asarray(samples) * 10.0, "fluid": ["air"] * len(samples)}


def items(pool, *asked, **given):
    requests = [Request(str(place), 0, place, item) for place, item in enumerate(asked)]
    return read_items(SimpleNamespace(choice_pool=pool), requests, **given)


def test_samples_and_generated_inputs_come_in_their_order():
    pool = Pool(torch.arange(12.0).reshape(6, 2))
    generated = {"T": torch.tensor(3.5), "field": torch.zeros(2)}
    first, second, third = items(pool, 4, generated, 1)
    assert (first.sample, second.sample, third.sample) == (4, None, 1)
    assert first.values == {"T": 40.0, "fluid": "air"}
    assert type(first.values["T"]) is float
    assert first.input.tolist() == [8, 9]
    assert third.input.tolist() == [2, 3]
    assert second.values["T"] == 3.5
    assert isinstance(second.input["field"], np.ndarray)
    assert pool.asked == 1


def test_values_that_are_known_are_not_asked_for_again():
    pool = Pool(torch.zeros(6, 2))
    (item,) = items(pool, 4, shown={4: {"T": 1.0}})
    assert item.values == {"T": 1.0}
    assert pool.asked == 0


def test_what_is_given_is_a_copy():
    pool = TensorPool(torch.zeros(6, 2, dtype=torch.bfloat16))
    (item,) = items(pool, 4)
    item.input.fill(1)
    assert item.input.dtype == np.float32
    assert not pool.inputs(torch.arange(6)).any()


def test_parts_of_an_input_without_names_are_numbered():
    plain, image = (items(TensorPool(inputs), 1)[0] for inputs in (torch.ones(3, 2), torch.ones(3, 2, 2)))
    assert plain.values == {}
    assert plain.named == {"x0": 1.0, "x1": 1.0}
    assert image.named == {}
