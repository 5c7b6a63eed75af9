#pragma once
// Command line words: positionals and `--name value` / `--name=value` / `--flag` options, checked against what the
// command takes. Unknown or incomplete options are errors with a hint.

#include <expected>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace ganglion::app {

class Args {
 public:
  struct Spec {
    std::initializer_list<std::string_view> with_value;  // names without dashes
    std::initializer_list<std::string_view> flags;
    std::size_t positionals_max = 0;
  };
  static std::expected<Args, std::string> parse(const std::vector<std::string>& words, const Spec& spec);

  bool has(std::string_view name) const { return options_.contains(name); }
  std::string get(std::string_view name, std::string fallback = {}) const;
  const std::vector<std::string>& positionals() const { return positionals_; }

 private:
  std::map<std::string, std::string, std::less<>> options_;
  std::vector<std::string> positionals_;
};

}  // namespace ganglion::app
