"""What there is to measure, and the command of each: python -m benchmarks"""

import ast
import pkgutil
from pathlib import Path

HOME = Path(__file__).parent


def main() -> None:
    for module in pkgutil.iter_modules([str(HOME)]):
        text = ast.get_docstring(ast.parse((HOME / f"{module.name}.py").read_text())) if not module.ispkg else None
        if text is None or module.name.startswith("_") or "python -m benchmarks." not in text:
            continue
        command = next(line.strip() for line in text.splitlines() if "python -m benchmarks." in line)
        print(f"{text.splitlines()[0]}\n    {command}\n")
    print("They need data of your own and an idle machine; BENCHMARKS.md has what was measured, and on what.")


if __name__ == "__main__":
    main()
