#pragma once
// One thing that is wrong, or questionable, in a configuration, with the place in the file where it stands.

#include <cstdint>
#include <string>
#include <vector>

namespace ganglion::config {

enum class Severity : std::uint8_t { error, warning };

struct Diagnostic {
  Severity severity = Severity::error;
  std::string file;     // as given to the loader
  int line = 0;         // from 1; 0: the file as a whole
  int column = 0;       // from 1
  std::string message;  // never holds the value of a secret

  friend bool operator==(const Diagnostic&, const Diagnostic&) = default;
};

// "file:line:column: message", one line each, in the order given; warnings say so.
std::string format(const Diagnostic& diagnostic);
std::string format(const std::vector<Diagnostic>& diagnostics);

}  // namespace ganglion::config
