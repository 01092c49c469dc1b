"""Calls MLServer's model `double` with NVIDIA's tritonclient; prints what it saw as JSON."""

import json
import sys

import numpy as np
import tritonclient.http as triton

address, key, function_id = sys.argv[1:]
headers = {"Authorization": f"Bearer {key}", "function-id": function_id}
client = triton.InferenceServerClient(url=address)
seen = {
    "ready": client.is_server_ready(headers=headers),
    "model_ready": client.is_model_ready("double", headers=headers),
    "platform": client.get_model_metadata("double", headers=headers)["name"],
}
array = np.arange(50_000, dtype=np.float32).reshape(5, 10_000)
tensor = triton.InferInput("x", list(array.shape), "FP32")
# MLServer takes tensors as JSON only; tritonclient's default is binary.
tensor.set_data_from_numpy(array, binary_data=False)
outputs = [triton.InferRequestedOutput("doubled", binary_data=False)]
for algorithm in (None, "gzip", "deflate"):
    result = client.infer(
        "double",
        [tensor],
        outputs=outputs,
        headers=headers,
        response_compression_algorithm=algorithm,
    )
    seen[str(algorithm)] = bool((result.as_numpy("doubled") == array * 2).all())
try:
    client.infer("absent", [tensor], outputs=outputs, headers=headers)
except triton.InferenceServerException as error:
    seen["absent"] = str(error)
sys.stdout.write(json.dumps(seen))
