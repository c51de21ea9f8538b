#!/usr/bin/env bash
# Writes DIRECTORY/harmless-requests.jsonl: the requests that the toxicity task's training file labels 0, taken out
# of the task's wording. They are real questions, some of which look harmful, and serve as harmless prompts in the
# alignment of SmolLM2.
#
#   scripts/harmless-requests.sh DIRECTORY DATA      DATA: the directory with tasks/toxicity and harmless
#
# Only ASCII requests of 12 to 160 characters, each once, none of harmless/prompts.jsonl. Needs python3.
set -euo pipefail
directory="${1:?name the directory to write to}"
data="${2:?name the data directory}"
mkdir -p "$directory"
python3 - "$directory/harmless-requests.jsonl" "$data" <<'PY'
import json, os, re, sys
out, data = sys.argv[1:]
rows = lambda name: [json.loads(line) for line in open(os.path.join(data, name), encoding="utf-8")]
seen = {row["prompt"] for row in rows("harmless/prompts.jsonl")}
request = re.compile(r"Output:0\n\nInput: <<(.*)>>\nOutput:$", re.S)
found = []
for row in rows("tasks/toxicity/train.jsonl"):
    match = request.search(row["prompt"])
    text = match.group(1).strip() if match and row["response"] == "0" else ""
    if 12 <= len(text) <= 160 and text.isascii() and text not in seen:
        seen.add(text)
        found.append(text)
if not found:
    sys.exit(f"harmless-requests: {data}/tasks/toxicity/train.jsonl holds no request labelled 0")
with open(out + ".partial", "w", encoding="utf-8") as file:
    file.writelines(json.dumps({"prompt": text}) + "\n" for text in found)
os.replace(out + ".partial", out)
print(f"harmless-requests: wrote {len(found)} requests to {out}", file=sys.stderr)
PY
