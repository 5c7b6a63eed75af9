# Picks the compiler before project(): clang 19 first, then newer clang, clang 18, g++ 13+. An explicit
# -DCMAKE_CXX_COMPILER or CXX wins. g++ 12 miscompiles coroutine statements, so it is refused with the reason.
if(NOT CMAKE_CXX_COMPILER AND NOT DEFINED ENV{CXX})
  find_program(GANGLION_CXX_FOUND NAMES clang++-19 clang++-20 clang++-18 g++-14 g++-13 clang++ g++)
  find_program(GANGLION_CC_FOUND NAMES clang-19 clang-20 clang-18 gcc-14 gcc-13 clang gcc)
  set(CMAKE_CXX_COMPILER ${GANGLION_CXX_FOUND} CACHE FILEPATH "C++ compiler")
  set(CMAKE_C_COMPILER ${GANGLION_CC_FOUND} CACHE FILEPATH "C compiler")
endif()

macro(ganglion_check_compiler)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    message(FATAL_ERROR
      "g++ ${CMAKE_CXX_COMPILER_VERSION} miscompiles common coroutine statements (use after free of values captured "
      "across co_await). Use clang 18+ (scripts/setup installs clang-19) or g++ 13+.")
  elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 18)
    message(FATAL_ERROR "clang ${CMAKE_CXX_COMPILER_VERSION} is too old for C++23 here; scripts/setup installs clang-19.")
  endif()
endmacro()
