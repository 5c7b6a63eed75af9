// Formats, and whether two schemas exclude each other.

#include <algorithm>
#include <map>

#include "backends/local/grammar/schema_parts.hpp"

namespace ganglion::local::grammar {

namespace {

#define YEAR "(000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})"
#define LEAP_YEAR "((\\d\\d(0[48]|[2468][048]|[13579][26]))|(0[48]|[2468][048]|[13579][26])00)"
#define DATE                                                                                                      \
  "(" YEAR                                                                                                        \
  "-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))|" LEAP_YEAR \
  "-02-29)"
#define TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define BYTE "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define IPV4 BYTE "(\\." BYTE "){3}"
#define H16 "[0-9A-Fa-f]{1,4}"

struct Format {
  const char *name, *pattern;
};
constexpr Format kFormats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"duration",
     "^P(\\d{1,9}W|(\\d{1,9}Y(\\d{1,9}M(\\d{1,9}D)?)?|\\d{1,9}M(\\d{1,9}D)?|\\d{1,9}D)(T(\\d{1,9}H(\\d{1,9}M(\\d{1,9}S)"
     "?)?|\\d{1,9}M(\\d{1,9}S)?|\\d{1,9}S))?|T(\\d{1,9}H(\\d{1,9}M(\\d{1,9}S)?)?|\\d{1,9}M(\\d{1,9}S)?|\\d{1,9}S))$"},
    {"uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"},
    {"email", "^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@" LABEL "(\\." LABEL "){1,4}$"},
    {"hostname", "^" LABEL "(\\." LABEL "){0,3}$"},
    {"ipv4", "^" IPV4 "$"},
    {"ipv6", "^((" H16 ":){7}" H16 "|(" H16 ":){1,7}:|(" H16 ":){1,6}:" H16 "|(" H16 ":){1,5}(:" H16 "){1,2}|(" H16
             ":){1,4}(:" H16 "){1,3}|(" H16 ":){1,3}(:" H16 "){1,4}|(" H16 ":){1,2}(:" H16 "){1,5}|" H16 ":(:" H16
             "){1,6}|:((:" H16 "){1,7}|:))$"},
    {"uri",
     "^[A-Za-z][A-Za-z0-9+.-]{0,30}:(//[A-Za-z0-9._~!$&'()*+,;=:@-]+)?([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*"
     "(\\?([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?(#([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?$"},
};

#undef YEAR
#undef LEAP_YEAR
#undef DATE
#undef TIME
#undef LABEL
#undef BYTE
#undef IPV4
#undef H16

unsigned type_of(const Json& v) {
  if (v.is_null()) return kNull;
  if (v.is_boolean()) return kBoolean;
  if (v.is_number_integer()) return kInteger;
  if (v.is_number()) return kNumber;
  if (v.is_string()) return kString;
  return v.is_array() ? kArray : kObject;
}

}  // namespace

const char* format_pattern(const std::string& format) {
  for (const Format& f : kFormats) {
    if (format == f.name) return f.pattern;
  }
  return nullptr;
}

bool apart(SchemaReader& reader, const Schemas& a, const Schemas& b, int depth) {
  if (depth > 4) return false;
  Conditions x, y;
  for (const Json* s : a) {
    if (!reader.absorb(x, *s)) return false;
  }
  for (const Json* s : b) {
    if (!reader.absorb(y, *s)) return false;
  }
  // Alternatives within: each has to be apart from the other side.
  for (const auto& [with, other] : {std::pair(&x, &b), std::pair(&y, &a)}) {
    for (const Conditions::Group& group : with->groups) {
      if (std::ranges::all_of(group.alternatives,
                              [&](const Json* s) { return apart(reader, {s}, *other, depth + 1); })) {
        return true;
      }
    }
  }
  // A schema without types is answered with those that its conditions mention, but any other satisfies it too.
  const auto answered = [](const Conditions& c) {
    return !c.typed && c.mentioned != 0 ? c.types & c.mentioned : c.types;
  };
  for (Conditions* c : {&x, &y}) {
    if (!c->values) continue;
    unsigned types = 0;
    for (const Json& v : *c->values) types |= type_of(v);
    c->types &= types;
  }
  const unsigned common = (answered(x) & y.types) | (x.types & answered(y));
  if (common == 0) return true;
  if (x.values && y.values) {
    return std::ranges::none_of(*x.values,
                                [&](const Json& v) { return std::ranges::find(*y.values, v) != y.values->end(); });
  }
  if (common != kObject) return false;
  const auto schemas_of = [](const Conditions& c, const std::string& name) {
    const auto at = std::ranges::find(c.properties, name, &std::pair<std::string, Schemas>::first);
    return at != c.properties.end() ? at->second : c.additional;
  };
  std::set<std::string> names = x.required;
  names.insert(y.required.begin(), y.required.end());
  return std::ranges::any_of(names, [&](const std::string& name) {
    return apart(reader, schemas_of(x, name), schemas_of(y, name), depth + 1) &&
           (x.required.contains(name) || y.required.contains(name));
  });
}

}  // namespace ganglion::local::grammar
