"""Golden prompts of the judge formats in data/judges: what Jinja2 and PyYAML make of each file on self-written text.

Rust renders with minijinja and reads with serde_yaml; both must write the same bytes. Writes
`tests/fixtures/judge_prompts.jsonl` of crates/evaluation: `file`, `prompt`, `response`, `rendered`.

  python scripts/goldens/judges.py
"""
import json
from pathlib import Path

import jinja2
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAIRS = [
    ("where is the old map", "in the box under the stairs"),
    ("  two lines\nand a {{ brace }} \n", "\n\"quoted\" <b>& caf\u00e9</b>\n\nthe end  "),
]


def main():
    """Renders every format with every pair."""
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    files = sorted((ROOT / "data/judges").glob("*/*.yaml"))
    lines = []
    for file in files:
        template = environment.from_string(yaml.safe_load(file.read_text())["template"])
        for prompt, response in PAIRS:
            rendered = template.render(prompt=prompt.strip(), response=response.strip())
            name = str(file.relative_to(ROOT / "data/judges"))
            lines.append({"file": name, "prompt": prompt, "response": response, "rendered": rendered})
    out = ROOT / "crates/evaluation/tests/fixtures/judge_prompts.jsonl"
    out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


if __name__ == "__main__":
    main()
