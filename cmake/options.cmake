# The one place for compile and link flags: the interface target ganglion_options that every target links.
set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_FLAGS_DEV "-O1 -gline-tables-only" CACHE STRING "" FORCE)
set(CMAKE_C_FLAGS_DEV "-O1 -gline-tables-only" CACHE STRING "" FORCE)
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG" CACHE STRING "" FORCE)
set(CMAKE_EXE_LINKER_FLAGS_DEV "" CACHE STRING "" FORCE)

find_program(GANGLION_CCACHE ccache)
if(GANGLION_CCACHE)
  set(_ccache ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
    CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=true ${GANGLION_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${_ccache})
  set(CMAKE_C_COMPILER_LAUNCHER ${_ccache})
endif()

find_package(Threads REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)

add_library(ganglion_options INTERFACE)
target_include_directories(ganglion_options INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
target_include_directories(ganglion_options SYSTEM INTERFACE ${Boost_INCLUDE_DIRS})
target_compile_definitions(ganglion_options INTERFACE
  BOOST_ASIO_SEPARATE_COMPILATION BOOST_BEAST_SEPARATE_COMPILATION BOOST_ASIO_NO_DEPRECATED
  BOOST_ASIO_DISABLE_VISIBILITY)
target_compile_options(ganglion_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
  -Wno-missing-field-initializers -fno-omit-frame-pointer)
target_link_libraries(ganglion_options INTERFACE Threads::Threads)

if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  string(REGEX MATCH "^[0-9]+" GANGLION_CLANG_MAJOR ${CMAKE_CXX_COMPILER_VERSION})
  find_program(GANGLION_LLD NAMES ld.lld-${GANGLION_CLANG_MAJOR} ld.lld)
  if(GANGLION_LLD)
    target_link_options(ganglion_options INTERFACE --ld-path=${GANGLION_LLD})
  endif()
endif()

set(GANGLION_SANITIZE "" CACHE STRING "Sanitizers, as -fsanitize= takes them")
if(GANGLION_SANITIZE)
  target_compile_options(ganglion_options INTERFACE -fsanitize=${GANGLION_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(ganglion_options INTERFACE -fsanitize=${GANGLION_SANITIZE})
  if(GANGLION_SANITIZE MATCHES "thread")
    # TSan does not model the fences that Asio uses.
    target_compile_definitions(ganglion_options INTERFACE BOOST_ASIO_DISABLE_FENCED_BLOCK)
  endif()
endif()
# Profile-guided optimisation: release builds use the profile that scripts/pgo leaves, where it is (docs/adr/0011-profile.md).
# A stale profile costs speed, never correctness. Its format is that of clang 19.
set(GANGLION_PGO use CACHE STRING "use, generate or off")
add_library(ganglion_profile INTERFACE)
set(GANGLION_PROFILE ${CMAKE_SOURCE_DIR}/cmake/release.profdata)
if(GANGLION_PGO STREQUAL "generate")
  target_compile_options(ganglion_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fprofile-generate -fprofile-update=atomic>)
  target_link_options(ganglion_options INTERFACE -fprofile-generate)
elseif(GANGLION_PGO STREQUAL "use" AND EXISTS ${GANGLION_PROFILE} AND CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT GANGLION_SANITIZE
       AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 19)
  # Functions that have changed since are built as if there were no profile, without a warning for each. Not for tests.
  target_compile_options(ganglion_profile INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fprofile-use=${GANGLION_PROFILE}
    -Wno-profile-instr-unprofiled -Wno-profile-instr-out-of-date -Wno-backend-plugin>)
endif()
# Link-time optimisation of the program alone (docs/adr/0019-link-time-optimisation.md): its libraries' objects hold both bitcode, which
# only its link reads, and the machine code that tests link, so that a test is built as fast as without.
option(GANGLION_LTO "Release builds of the program are optimised at link time (clang with lld)" ON)
set(GANGLION_LTO_FLAGS "")
if(GANGLION_LTO AND CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT GANGLION_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang"
   AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 19 AND GANGLION_LLD)
  set(GANGLION_LTO_FLAGS -flto=thin -ffat-lto-objects)
  target_compile_options(ganglion_profile INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${GANGLION_LTO_FLAGS}>)
endif()
option(GANGLION_CUDA "Build the CUDA device layer of the local engine (needs the CUDA Toolkit 12.8 or later)" OFF)
if(GANGLION_CUDA)
  include(${CMAKE_CURRENT_LIST_DIR}/cuda.cmake)
endif()
option(GANGLION_FUZZ "Build the libFuzzer targets" OFF)
if(GANGLION_FUZZ)
  target_compile_options(ganglion_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
