"""Quantizes an ONNX file by NNCF, in NNCF's venv: python _nncf_quantizer.py SOURCE TARGET SAMPLES."""

from __future__ import annotations

import json
import sys
import time

import nncf  # type: ignore[import-not-found]
import numpy as np
import onnx


def main(source: str, target: str, samples: str) -> None:
    """Static int8 with SmoothQuant, calibrated on every sample."""
    model = onnx.load(source)
    # Shapes that the exporter left in the file contradict those that NNCF infers anew.
    model.graph.ClearField("value_info")
    with np.load(samples, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    count = len(next(iter(arrays.values())))
    data = nncf.Dataset([{name: array[i : i + 1] for name, array in arrays.items()} for i in range(count)])
    begin = time.process_time()
    done = nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=count)
    onnx.save(done, target)
    print(json.dumps({"nncf": nncf.__version__, "cpu_s": round(time.process_time() - begin, 1)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
