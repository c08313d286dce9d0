"""What the figures ought to be, as ratios within one run."""

from __future__ import annotations

from typing import Any

JAX, NUMPY, NUMBA = "JAX jit", "tinybilevel, NumPy", "tinybilevel, Numba"
LOOP, PATCHES = "tinybilevel, compiled loop", "JAX, patches and features once"
TORCH = ("torch", "torch, explicit adjoint", "higher", "TorchOpt")


def judge(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each goal with the ratio that was found."""
    found: list[dict[str, Any]] = []
    for result in results:
        who = result["who"]

        def add(
            a: str, others: tuple[str, ...], most: float, result: dict[str, Any] = result
        ) -> None:
            times = [
                result["who"][n]["seconds"] for n in others if "seconds" in result["who"].get(n, {})
            ]
            if not times or "seconds" not in result["who"].get(a, {}):
                return
            ratio = result["who"][a]["seconds"] / min(times)
            against = others[0] if len(others) == 1 else f"the best of {', '.join(others)}"
            found.append(
                {"case": result["case"], "what": f"{a} / {against}", "ratio": ratio, "most": most}
            )

        if "GPU" in result["case"]:
            add("tinybilevel, CUDA", (JAX, *TORCH, "torch, compiled adjoint"), 0.5)
            if "500000 rows" in result["case"]:
                add("tinybilevel, CUDA", ("copying X on the GPU",), 1 / 0.7)
            continue
        if result.get("many"):
            if "seconds" in who[NUMBA]:
                each = 1e6 * who[NUMBA]["seconds"] / result["many"]
                found.append(
                    {"case": result["case"], "what": "µs for each λ", "ratio": each, "most": 1.2}
                )
            continue
        if result["kind"] == "forms":
            for name, r in who.items():
                what = {"what": f"s of {name}", "ratio": r["seconds"], "most": 1.0}
                found.append({"case": result["case"], **what})
            continue
        match result["kind"], result.get("dtype"):
            case "hypercleaning", "float32":
                add(NUMBA, (JAX,), 0.40)
                add(NUMBA, TORCH, 0.45)
                add(NUMBA, ("reading X",), 1.5)
                add(NUMPY, (JAX,), 1.15)
            case "hypercleaning", "float64":
                add(NUMBA, (JAX,), 0.48)
                add(NUMBA, TORCH, 0.60)
                add(NUMPY, (JAX,), 1.15)
            case "tasks", _:
                gram, fewer = (JAX, "JAX, explicit adjoint"), result["rows"] == 300
                hundred = "100 classes" in result["case"]
                add(NUMBA, gram, 1.0 if hundred else 0.2 if fewer else 0.45)
                add(NUMPY, gram, 1.4)
            case "toy", _:
                add("tinybilevel, kernel", (JAX,), 0.2)
                add(NUMBA, (JAX,), 1.0)
            case "one-shot", _:
                add(LOOP, (PATCHES, "JAX, lax.conv"), 0.8)
                add(LOOP, ("torch, features once",), 0.5)
            case "first", _:
                add(NUMPY, (JAX,), 0.3)
                add(NUMPY, ("torch",), 0.3)
        for name, most in ((NUMPY, 20.0), (NUMBA, 60.0)):
            if result.get("rows") == 5000 and result["K"] == 100 and "memory" in who.get(name, {}):
                found.append(
                    {
                        "case": result["case"],
                        "what": f"MB of {name}",
                        "ratio": who[name]["memory"],
                        "most": most,
                    }
                )
    return found
