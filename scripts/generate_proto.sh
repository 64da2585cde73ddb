#!/usr/bin/env bash
# Lints proto/ with buf and regenerates the Python modules under proto/gen (or the folder given as $1).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-proto/gen}
bin=$(dirname "${PYTHON:-.venv/bin/python}")
python=$bin/python
site=$("$python" -c 'import google.rpc, os; print(os.path.dirname(os.path.dirname(list(google.rpc.__path__)[0])))')
builtin=$("$python" -c 'import grpc_tools, os; print(os.path.join(os.path.dirname(grpc_tools.__file__), "_proto"))')
files=$(cd proto && find hutong -name '*.proto' | sort)

image=$(mktemp --suffix=.binpb)
trap 'rm -f "$image"' EXIT
# buf's own registry is not needed: protoc resolves google/rpc from the installed wheels.
"$python" -m grpc_tools.protoc -Iproto -I"$site" -I"$builtin" --include_imports --include_source_info -o "$image" $files
paths=()
for file in $files; do paths+=(--path "$file"); done
"$bin/buf" lint "$image" --config proto/buf.yaml "${paths[@]}"

mkdir -p "$out"
find "$out/hutong" -name '*_pb2*' -delete 2>/dev/null || true
"$python" -m grpc_tools.protoc -Iproto -I"$site" -I"$builtin" \
  --plugin=protoc-gen-mypy="$bin/protoc-gen-mypy" --plugin=protoc-gen-mypy_grpc="$bin/protoc-gen-mypy_grpc" \
  --python_out="$out" --grpc_python_out="$out" --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" $files
find "$out/hutong" -type d | while read -r folder; do
  [ -e "$folder/__init__.py" ] || echo '"""Generated from proto/ by scripts/generate_proto.sh; not edited by hand."""' > "$folder/__init__.py"
done
touch "$out/hutong/py.typed" # the messages carry types (PEP 561)
# A file without services has nothing to serve.
grep -L 'add_.*Servicer_to_server' $(find "$out/hutong" -name '*_pb2_grpc.py') | while read -r empty; do rm -f "$empty" "${empty}i"; done
