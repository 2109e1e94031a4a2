"""The embedded data set: 1,797 real handwritten digits of 8x8 pixels that scikit-learn carries.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998
(https://doi.org/10.24432/C50P49), its test part, as `sklearn.datasets.load_digits` gives it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits

from fedcl.core.seeding import derive
from fedcl.data.base import Dataset, DataSource, make_dataset

TEST_PER_CLASS = 36  # of 174 to 183 images: 360 for the test, 1437 for training


@dataclass(frozen=True, kw_only=True)
class Digits(DataSource):
    """1437 training and 360 test images, uint8 [N, 1, 8, 8]; always the same split, whatever the run's seed.

    Pixels count 0..16 in the source; they become round(v * 255 / 16). `root` and `download` have no meaning
    here: the files come with scikit-learn.
    """

    horizontal_flip: bool = False  # a mirrored digit is not that digit

    def load(self) -> Dataset:
        images, labels = load_digits(return_X_y=True)
        images_NCHW = torch.from_numpy(np.rint(images.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8))
        labels_N = torch.from_numpy(labels.astype(np.int64))
        is_test_N = torch.zeros(len(labels_N), dtype=torch.bool)
        for label in range(10):
            rows = torch.nonzero(labels_N == label).flatten().tolist()
            # Ranked by hash, not drawn: the split does not depend on the version of a random generator.
            rows.sort(key=lambda row: derive(0, f"digits split, image {row}"))
            is_test_N[rows[:TEST_PER_CLASS]] = True
        return make_dataset(
            name="digits",
            train=(images_NCHW[~is_test_N], labels_N[~is_test_N]),
            test=(images_NCHW[is_test_N], labels_N[is_test_N]),
            horizontal_flip=self.horizontal_flip,
        )
