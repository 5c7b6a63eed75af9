#pragma once
// What no single field can see: references between names, duplicates, and combinations that would be unsafe.

#include "config/config.hpp"
#include "config/node.hpp"
#include "config/reader.hpp"

namespace ganglion::config {

// `root` is the document that `config` was read from; it gives the places. Runs on a partly read configuration too.
void check_meaning(Reader& reader, const Node& root, const Config& config);

// Makes TLS files and model folders absolute and reports those that are not there.
void resolve_files(Reader& reader, const Node& root, Config& config);

}  // namespace ganglion::config
