"""Two servers as most would write them, for comparison: same framework, same bundle, same JSON, no batching.

``python benchmarks/_serving_peers.py {one_by_one|naive} BUNDLE PORT``. *one_by_one* asks TensorFlow's top-k for each
request by itself. *naive* has the graph return every score, and sorts them in Python.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def main() -> None:
    way, bundle, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    import numpy as np
    import orjson
    import tensorflow as tf
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    model = tf.saved_model.load(str(bundle / "1"))
    signature = model.signatures["serving_default"]
    everything = int(model.names.shape[0]) - 1
    worker = ThreadPoolExecutor(1)

    def ask(session: list[str], k: int, exclude_seen: bool) -> dict:
        return signature(
            actions=tf.constant([["detail"] * len(session)]),
            skus=tf.constant([session]),
            timestamps_ms=tf.constant(np.full((1, len(session)), -1, dtype=np.int64)),
            k=tf.constant(k),
            exclude_seen=tf.constant(exclude_seen),
        )

    def answer(body: bytes) -> bytes:
        asked = orjson.loads(body)
        predictions = []
        for session in asked["sessions"]:
            k, exclude_seen = asked["k"], asked["exclude_seen"]
            if way == "naive":
                outputs = ask(session, everything, False)
                pairs = zip(outputs["skus"].numpy()[0].tolist(), outputs["scores"].numpy()[0].tolist(), strict=True)
                seen = {sku.encode() for sku in session} if exclude_seen else set()
                ranked = sorted((pair for pair in pairs if pair[0] not in seen), key=lambda pair: -pair[1])[:k]
            else:
                outputs = ask(session, k, exclude_seen)
                ranked = zip(outputs["skus"].numpy()[0].tolist(), outputs["scores"].numpy()[0].tolist(), strict=True)
            skus, scores = zip(*ranked, strict=True)
            fallback = bool(outputs["fallback"].numpy()[0])
            predictions.append({"skus": [sku.decode() for sku in skus], "scores": list(scores), "fallback": fallback})
        return orjson.dumps({"predictions": predictions})

    async def invocations(request) -> Response:
        import asyncio

        body = await request.body()
        content = await asyncio.get_running_loop().run_in_executor(worker, answer, body)
        return Response(content, media_type="application/json")

    async def ping(_request) -> Response:
        return Response()

    app = Starlette(routes=[Route("/invocations", invocations, methods=["POST"]), Route("/ping", ping)])
    uvicorn.run(app, port=port, log_level="error")


if __name__ == "__main__":
    main()
