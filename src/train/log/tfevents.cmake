# C code of the TensorBoard messages, made by protoc-c when the tree is built.
find_program(PROTOC_C protoc-c REQUIRED)
set(tfevents ${CMAKE_BINARY_DIR}/src/train/log/tfevents.pb-c)
add_custom_command(
  OUTPUT ${tfevents}.c ${tfevents}.h
  COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/src/train/log
  COMMAND ${PROTOC_C} --proto_path=${CMAKE_SOURCE_DIR} --c_out=${CMAKE_BINARY_DIR} src/train/log/tfevents.proto
  DEPENDS ${CMAKE_SOURCE_DIR}/src/train/log/tfevents.proto
  COMMENT "protoc-c tfevents.proto")
set_source_files_properties(${tfevents}.c PROPERTIES COMPILE_OPTIONS -w)
target_sources(espl_train PRIVATE ${tfevents}.c ${tfevents}.h)
target_include_directories(espl_train PRIVATE ${CMAKE_BINARY_DIR})
