#pragma once
// The configuration written out from the one table of fields: for operators, editors, documentation and reloads.

#include <string>
#include <vector>

#include "config/config.hpp"

namespace ganglion::config {

// The values in force as JSON in the shape of the YAML file; a secret that is set reads "[redacted]".
std::string describe_redacted(const Config& config);

// Key paths ("server.listen", "ledger.directory") whose change takes a restart. They keep their old value until then.
std::vector<std::string> changed_not_reloadable(const Config& before, const Config& after);

// `ganglion config --print-default`: a complete commented file that loads as the embedded default does.
std::string default_yaml();
// `ganglion config --print-schema`: JSON Schema, draft 2020-12.
std::string json_schema();
// docs/config.md, whole.
std::string reference_markdown();

}  // namespace ganglion::config
