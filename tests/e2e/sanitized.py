"""Cases that are left out under sanitizers (ESPL_TEST_LIGHT), by test. What they show beyond the others is equal bits, times, or words, and the
release build has shown that; the C code which they reach is reached, sanitized, by the cases that are kept, or by unit tests. Whole tests of
that kind say `sanitized=no` in their first line."""

LEFT_OUT = {
    # Which ranks a run is resumed on is nothing to the code of one rank.
    "test_resume": "windows_on_2_4_1 bf16_without_masters_on_2_1 a_finished_run_stays_as_it_is never_begins_anew from_a_path signals_to_ranks a_launcher_that_ends_its_ranks",
    "test_ranks": "windows_and_controls packed_documents_without_dropout bf16_sharded_and_replicated replicated_is_sharded twelve_micro_batches recompute_changes_nothing",
    "test_sharding": "all_ways_have_the_same_bits what_cannot_be_cut_is_refused",
    # Each method's rows, state and files once.
    "test_tuning": "a_prefix_is_used_where_it_is a_phase_is_the_run_that_trains_just_that what_has_begun_stays phases_are_planned dora_resumed_on_2_4_1_is_undisturbed "
                   "adapters_are_used_where_they_are lora_resumed_on_2_4_1_is_undisturbed only_the_part_changes resumed_on_2_4_1_is_undisturbed "
                   "a_run_and_its_export_say_the_same a_random_base_is_the_seed a_base_may_be_a_checkpoint the_plan_is_smaller",
    "test_optimizers": "another_optimizer_is_refused rates_are_told a_checkpoint_is_a_start the_plan_tells",
    "test_quantised": "other_methods_stand_on_one_too an_emulated_gpu_has_the_bits_of_the_expanded_base the_plan_is_smaller",
    # Each task, and each kind of score, once.
    "test_tasks": "ranks_agree a_pause_changes_nothing patience_ends_a_run another_tokenizer_is_seen recipes_learn recipes_that_do_not_learn_are_seen "
                  "imdb_at_512_tokens dialogsum_end_to_end",
    "test_probe": "same_on_two_ranks_and_resumed ends_training_or_warns",
    "test_provenance": "keeps_what_the_user_wrote",
    "test_report": "stands_in_a_browser",
    # The saver's errors are those of test_checkpoint_faults; the watchdog's those of test_watchdog.
    "test_bad_checkpoints": "incomplete_newest none_is_good",
    "test_bad_machine": "unwritable_run_folder file_size_limit a_rank_stops",
    "test_rollback": "told_or_skipped ended more_is_left_out a_gpu_goes_back resumed not_finite",
    "test_times_up": "its_own_walltime a_save_at_half_time",
    # What reaches memory of the emulated GPU that the others do not is kept.
    "test_emu": "llama_is_the_cpus bert_is_the_cpus fast_repeats_itself any_legal_order whole_matrices protected snapshots_under_way over_to_the_cpu_and_back recorded_or_not "
                "phases_are_recorded_anew a_soft_prompt_is_the_cpus a_prefix_is_the_cpus dora_is_the_cpus plan_is_what_is_taken no_device_to_use libraries_that_are_not_there",
}


def kept(test, cases):
    """Those of a test's cases that run under sanitizers, too."""
    names = LEFT_OUT.get(test, "").split()
    unknown = set(names) - {case.__name__ for case in cases}
    if unknown:
        raise SystemExit(f"sanitized.py: {test} has no case {', '.join(sorted(unknown))}")
    return [case for case in cases if case.__name__ not in names]
