#!/usr/bin/env bash
# Writes DIRECTORY/harmless-requests.jsonl and DIRECTORY/harmless-evaluation.jsonl: the requests that the toxicity task's
# training and test file label 0, taken out of the task's wording. They are real questions, some of which look harmful.
# The first file serves as harmless prompts in the alignment of SmolLM2, the second measures its over-refusal.
#
#   scripts/harmless-requests.sh DIRECTORY DATA      DATA: the directory with tasks/toxicity and harmless
#
# Only ASCII requests of 12 to 160 characters, each once and in one file, none of harmless/prompts.jsonl and, of the test
# file, none that is among the examples of the training file's prompts. Needs python3.
set -euo pipefail
directory="${1:?name the directory to write to}"
data="${2:?name the data directory}"
mkdir -p "$directory"
python3 - "$directory" "$data" <<'PY'
import json, os, re, sys
out, data = sys.argv[1:]
rows = lambda name: [json.loads(line) for line in open(os.path.join(data, name), encoding="utf-8")]
seen = {row["prompt"] for row in rows("harmless/prompts.jsonl")}
example = re.compile(r"Input: <<(.*?)>>\nOutput:", re.S)
request = re.compile(r"Output:0\n\nInput: <<(.*)>>\nOutput:$", re.S)
for split, name in [("train", "harmless-requests.jsonl"), ("test", "harmless-evaluation.jsonl")]:
    found, asked = [], rows(f"tasks/toxicity/{split}.jsonl")
    for row in asked:
        match = request.search(row["prompt"])
        text = match.group(1).strip() if match and row["response"] == "0" else ""
        if 12 <= len(text) <= 160 and text.isascii() and text not in seen:
            seen.add(text)
            found.append(text)
    if not found:
        sys.exit(f"harmless-requests: {data}/tasks/toxicity/{split}.jsonl holds no request labelled 0")
    seen.update(text.strip() for row in asked for text in example.findall(row["prompt"]))
    path = os.path.join(out, name)
    with open(path + ".partial", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": text}) + "\n" for text in found)
    os.replace(path + ".partial", path)
    print(f"harmless-requests: wrote {len(found)} requests to {path}", file=sys.stderr)
PY
