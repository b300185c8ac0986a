#!/usr/bin/env python3
"""Make ../fixtures/sharded.{meta,index,data-*} with real TensorFlow: a saver that writes a file for each device.

    make_sharded_saver.py [FOLDER]
"""
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

tf1 = tf.compat.v1
FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def main(folder):
    """`first` [2, 2] holds 0, 1, 2, 3 on one device, `second` [3] holds 0.5, 1.5, 2.5 on another; `third` is beside `first`."""
    tf1.disable_resource_variables()
    config = tf1.ConfigProto(device_count={"CPU": 2})
    with tf1.Graph().as_default(), tf1.Session(config=config) as session:
        with tf1.device("/cpu:0"):
            tf1.get_variable("first", initializer=tf.constant([[0.0, 1.0], [2.0, 3.0]]))
            tf1.get_variable("third", initializer=tf.constant([7, 8], tf.int64))
        with tf1.device("/cpu:1"):
            tf1.get_variable("second", initializer=tf.constant([0.5, 1.5, 2.5]))
        saver = tf1.train.Saver(sharded=True)
        session.run(tf1.global_variables_initializer())
        saver.save(session, str(folder / "sharded"), write_state=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURES)
