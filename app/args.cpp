// See app/args.hpp.

#include "app/args.hpp"

#include <algorithm>

namespace ganglion::app {

std::expected<Args, std::string> Args::parse(const std::vector<std::string>& words, const Spec& spec) {
  Args out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (!word.starts_with("--")) {
      if (out.positionals_.size() == spec.positionals_max) return std::unexpected("unexpected argument '" + word + "'");
      out.positionals_.push_back(word);
      continue;
    }
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(2, equals == std::string::npos ? std::string::npos : equals - 2);
    if (std::ranges::find(spec.flags, name) != spec.flags.end()) {
      if (equals != std::string::npos) return std::unexpected("--" + name + " takes no value");
      out.options_[name] = "true";
    } else if (std::ranges::find(spec.with_value, name) != spec.with_value.end()) {
      if (equals == std::string::npos && ++i == words.size()) return std::unexpected("--" + name + " needs a value");
      out.options_[name] = equals == std::string::npos ? words[i] : word.substr(equals + 1);
    } else {
      std::string known;
      for (const auto& list : {spec.with_value, spec.flags}) {
        for (const std::string_view option : list) known += " --" + std::string{option};
      }
      return std::unexpected("unknown option --" + name + (known.empty() ? "" : "; known here:" + known));
    }
  }
  return out;
}

std::string Args::get(std::string_view name, std::string fallback) const {
  const auto it = options_.find(name);
  return it == options_.end() ? std::move(fallback) : it->second;
}

}  // namespace ganglion::app
