#pragma once
// The older pair of files, vocab.json and merges.txt, as the tokenizer.json that would mean the same: byte-level BPE
// with GPT-2's pattern. Models that were published before tokenizer.json (OPT) have no other.

#include <filesystem>
#include <string>

#include "core/error.hpp"

namespace ganglion::local::tok {

bool has_gpt2_files(const std::filesystem::path& dir);
// The text of that tokenizer.json. tokenizer_config.json beside them names the special tokens, and says with
// add_bos_token whether a text begins with one.
core::Result<std::string> read_gpt2_files(const std::filesystem::path& dir);

}  // namespace ganglion::local::tok
