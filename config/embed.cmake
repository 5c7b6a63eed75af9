# Writes OUTPUT: the text file INPUT as a C++ string. Raw string pieces stay below the 64 KiB that compilers allow.
file(READ ${INPUT} text)
string(LENGTH "${text}" length)
if(length GREATER 60000)
  message(FATAL_ERROR "${INPUT} is too long for one string literal")
endif()
file(WRITE ${OUTPUT} "// Generated from config/ganglion.yaml.
#include <string_view>
namespace ganglion::config {
extern const std::string_view kEmbeddedDefault;
const std::string_view kEmbeddedDefault = R\"yaml(${text})yaml\";
}  // namespace ganglion::config
")
