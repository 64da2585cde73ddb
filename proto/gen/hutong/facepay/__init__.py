"""Generated from proto/ by scripts/generate_proto.sh; not edited by hand."""
