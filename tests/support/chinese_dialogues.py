"""Invented dialogues in Chinese: a hundred of them, the same in every run.

Two people talk in turns of everyday speech. Each emotion has frames of its own, whose places are
filled with people, things and times, so that few sentences are equal. None names its emotion.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LABELS = ("开心", "难过", "生气", "惊讶", "平静")
SPEAKERS = ("小明", "小红", "老王", "阿丽")

_WORDS = {
    "人": (
        "我妈",
        "我爸",
        "我哥",
        "小李",
        "老师",
        "邻居",
        "房东",
        "同桌",
        "老板",
        "表妹",
        "奶奶",
        "室友",
    ),
    "物": (
        "手机",
        "钥匙",
        "自行车",
        "行李",
        "雨伞",
        "相机",
        "那本书",
        "蛋糕",
        "门票",
        "作业",
        "猫",
        "电脑",
    ),
    "时": (
        "昨天晚上",
        "今天早上",
        "上个星期",
        "刚才",
        "半夜",
        "周末",
        "开会的时候",
        "吃饭的时候",
        "下班以后",
        "前天",
    ),
    "地": (
        "地铁站",
        "楼下",
        "公司",
        "学校门口",
        "超市",
        "医院",
        "火车上",
        "公园里",
        "厨房",
        "电影院",
    ),
}
_FRAMES = {
    "开心": (
        "{人}{时}终于答应我了，我们马上就出发！",
        "你看，{人}把{物}送给我了，真是太棒啦！",
        "哈哈，{时}在{地}碰到{人}，我们聊了好久！",
        "成功了成功了，{人}说{时}就能拿到{物}！",
        "{时}我在{地}找到了{物}，今晚我请客！",
    ),
    "难过": (
        "{人}{时}搬走了，家里一下子空荡荡的。",
        "我一个人在{地}坐到天黑，谁也没有来。",
        "{物}是{人}留给我的，现在再也找不回来了。",
        "{时}我给{人}打电话，听着听着就掉眼泪了。",
        "要是{人}还在就好了，{地}什么都没有变。",
    ),
    "生气": (
        "{人}{时}又把{物}弄坏了，这已经是第三次了！",
        "你凭什么不问一声就拿走我的{物}？",
        "我在{地}等了你两个小时，你居然关机！",
        "够了，{人}的事轮不到你来管！",
        "{时}吵到现在，还让不让人睡觉了！",
    ),
    "惊讶": (
        "什么？{人}{时}就把{物}卖掉了？",
        "天哪，你怎么会在{地}？不是说不来吗？",
        "{物}居然一直在{地}，我找了整整一个月！",
        "等等，你说{人}是你的亲戚？",
        "真没想到{时}{人}会从{地}走进来！",
    ),
    "平静": (
        "{时}我去{地}一趟，顺便把{物}带回来。",
        "{人}说{物}放在{地}了，你自己去拿吧。",
        "明天的会改到下午三点，在{地}旁边。",
        "{人}{时}来过，坐了一会儿就走了。",
        "先把{物}收起来，我们到{地}再说。",
    ),
}


def sentence(emotion: str, rng: random.Random) -> str:
    """Return a sentence that expresses an emotion without naming it."""
    return rng.choice(_FRAMES[emotion]).format(**{k: rng.choice(w) for k, w in _WORDS.items()})


def dialogues(count: int = 100, seed: int = 23) -> Iterator[dict[str, Any]]:
    """Yield dialogues as JSON Lines has them, each of four to eight turns with one label."""
    rng = random.Random(seed)
    for number in range(count):
        speakers = rng.sample(SPEAKERS, 2)
        turns = []
        for turn in range(rng.randint(4, 8)):
            emotion = rng.choice(LABELS)
            turns.append(
                {
                    "speaker": speakers[turn % 2],
                    "text": sentence(emotion, rng),
                    "labels": [emotion],
                }
            )
        yield {"id": f"zh{number:03d}", "turns": turns}


def write_dialogues(path: Path, count: int = 100, seed: int = 23) -> Path:
    """Write dialogues as a JSON Lines file and return its path."""
    lines = (json.dumps(dialogue, ensure_ascii=False) for dialogue in dialogues(count, seed))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
