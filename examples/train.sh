# shellcheck shell=bash
# For the other examples, which `source` it: training that picks up where it was stopped.

train() { # STAGE CHECKPOINT.pt SHARDS OPTIONS...: unless it is there; on GPUS=N devices
    local stage=$1 output=$2 run=(blurkit)
    shift 2
    if [ -e "$output" ]; then return; fi
    if [ -e "${output%.pt}.state.pt" ]; then set -- "$@" --resume; fi
    if [ "${GPUS:-1}" -gt 1 ]; then run=(torchrun --nproc-per-node "$GPUS" -m blurkit); fi
    "${run[@]}" "$stage" "$@" -o "$output"
}
