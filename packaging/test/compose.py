"""compose.py FILE SCHEMA: fails when a compose file is not as the schema has it."""

import json
import sys

import jsonschema
import yaml

document = yaml.safe_load(open(sys.argv[1]))
schema = json.load(open(sys.argv[2]))
errors = list(jsonschema.validators.validator_for(schema)(schema).iter_errors(document))
for error in errors:
    print(f"{'.'.join(map(str, error.path))}: {error.message}")
sys.exit(bool(errors))
