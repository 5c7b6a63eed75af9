# The GPU engine against the card's ceilings; also part of tools/gpu.
add_library(bench_gpu_ladder STATIC ${CMAKE_CURRENT_LIST_DIR}/ladder.cu)
set_target_properties(bench_gpu_ladder PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON)
target_include_directories(bench_gpu_ladder PRIVATE ${CMAKE_CURRENT_LIST_DIR}/../..)
target_compile_options(bench_gpu_ladder PRIVATE ${GANGLION_CUDA_OPTIONS})
add_executable(bench_gpu ${CMAKE_CURRENT_LIST_DIR}/bench_gpu.cpp
  ${CMAKE_CURRENT_LIST_DIR}/decoder_part.cpp
  ${CMAKE_CURRENT_LIST_DIR}/engine_part.cpp
  ${CMAKE_CURRENT_LIST_DIR}/eight_bit_part.cpp
  ${CMAKE_CURRENT_LIST_DIR}/families_part.cpp
  ${CMAKE_CURRENT_LIST_DIR}/models_part.cpp
  ${CMAKE_CURRENT_LIST_DIR}/roofline_part.cpp
  ${CMAKE_CURRENT_LIST_DIR}/steps_part.cpp)
target_compile_definitions(bench_gpu PRIVATE GANGLION_SOURCE_DIR=".")
target_link_libraries(bench_gpu PRIVATE ganglion_options ganglion_local_cuda ganglion_local_engine bench_gpu_ladder)
